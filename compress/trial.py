"""Candidates for the student against the teacher: bundles, through the SDK, on every CPU engine that is here, on the
validation split. What was made for each is kept, and attempts.json says what it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluate import Cell, Result, evaluate
from compress.assemble import assemble
from compress.data import open_dataset
from compress.deploy import contents, evalset
from compress.draft import Draft, ModelFiles
from compress.engines import cpu_targets
from compress.judge import Judgement, Limits, judge
from compress.progress import bar
from compress.unknown_threshold import unknown_threshold, write_threshold
from runtimes import GateFailed, Unavailable, VerifyError
from sdk.bundle import open_bundle

ATTEMPTS = "attempts.json"


@dataclass(frozen=True)
class Attempt:
    """`what` was done to get `model`, whose bundle is `bundle`. `judgements`: one for each engine; none when the bundle
    could not even be made. `failures`: why it is refused, a sentence each; empty when it passed."""

    what: str
    model: ModelFiles
    bundle: Path
    judgements: tuple[Judgement, ...]
    failures: tuple[str, ...]

    @property
    def towers(self) -> tuple[str, ...]:
        """Towers that may be to blame, in the order of the model's graphs."""
        blamed = frozenset().union(*(each.towers for each in self.judgements)) or frozenset(self.model.graphs)
        return tuple(tower for tower in self.model.graphs if tower in blamed)

    @property
    def lost(self) -> tuple[int, ...]:
        """Positions of the validation images on which any engine lost something, in order."""
        return tuple(sorted(frozenset().union(*(each.lost for each in self.judgements))))


class Trial:
    """The teacher's bundle and what it answers on each engine, for students to be compared with."""

    def __init__(self, draft: Draft, limits: Limits, golden: int) -> None:
        """Writes into `draft.folder`. `golden`: samples per bundle.

        Raises Unavailable without a CPU engine.
        """
        self._draft, self._limits, self._golden = draft, limits, golden
        self.engines = cpu_targets()
        self._corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        self.val = evalset(self._corpus, "val")
        self.teacher = draft.folder / "teacher"
        self._assemble(draft.need("teacher", "gate"), "teacher", self.teacher)
        self._answers = self._evaluate(self.teacher, "fp32", "gate: teacher")
        self._results = {self.teacher: self._answers}

    def attempt(self, what: str, model: ModelFiles, number: int, precision: str = "int8") -> Attempt:
        """Assemble the bundle of `model` in `draft.folder`, evaluate it in that precision, judge it on every engine."""
        bundle = self.folder(number) / "student"
        try:
            self._assemble(model, "student", bundle)
        except GateFailed as error:  # engines disagree on it
            return Attempt(what, model, bundle, (), (str(error),))
        try:
            results = self._evaluate(bundle, precision, f"gate: {what}")
        except (Unavailable, VerifyError) as error:  # it gives vectors that are zero or not finite
            return Attempt(what, model, bundle, (), (str(error),))
        self._results[bundle] = results
        judged = tuple(
            judge(teacher, student, self.val, self._limits)
            for teacher, student in zip(self._answers, results, strict=True)
        )
        return Attempt(what, model, bundle, judged, tuple(text for each in judged for text in each.failures))

    def calibrate(self, bundle: Path, share: float) -> float:
        """Write into a bundle that was judged here the cosine below which `share` (0..1) of the labelled validation
        images lie, on the first engine; returns it."""
        threshold = unknown_threshold(open_bundle(bundle), self._results[bundle][0], self.val, share)
        write_threshold(bundle, threshold)
        return threshold

    def folder(self, number: int) -> Path:
        """Where attempt `number` may write; made if it is not there."""
        folder = self._draft.folder / f"attempt-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def _assemble(self, model: ModelFiles, who: str, out: Path) -> None:
        assemble(model, contents(self._draft, self._corpus, who, self._golden), out)

    def _evaluate(self, bundle: Path, precision: str, title: str) -> list[Result]:
        with bar(title, len(self.engines) * len(self.val.images)) as tick:
            return [evaluate(bundle, self.val, Cell(str(engine), precision), tick) for engine in self.engines]


def write_attempts(attempts: Sequence[Attempt], folder: Path) -> None:
    """attempts.json in `folder`: what was tried, every figure, and where the bundle of it lies."""
    rows: list[dict[str, Any]] = [
        {
            "what": each.what,
            "passed": not each.failures,
            "failures": each.failures,
            "bundle": each.bundle.relative_to(folder).as_posix(),
            "graphs": {tower: {v: p.name for v, p in paths.items()} for tower, paths in each.model.graphs.items()},
            "engines": {
                judged.on: judged.metrics() | {"classes": [dataclasses.asdict(loss) for loss in judged.classes]}
                for judged in each.judgements
            },
        }
        for each in attempts
    ]
    (folder / ATTEMPTS).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
