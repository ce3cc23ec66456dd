"""`--ablate`: the model as it stands after each step, on the validation split: what every step gave, and what it cost.

Every model is packed as a bundle and measured through the SDK on the first CPU engine, like a finished one. Rows are
kept beside the steps, DIR/.work/ablation/NN-name.json, under the step's key: nothing is measured twice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdk
from benchmarks.evaluate import Cell, Result, evaluate
from benchmarks.stats import clustered, wilson
from benchmarks.timing import paired_latency
from compress.attempt import read_record, write_record
from compress.data import open_dataset
from compress.deploy import evalset
from compress.engines import cpu_targets
from compress.interim import graph_bytes, interim_bundle, precision_of, subject
from compress.progress import bar
from compress.results import asked_of
from compress.steps import WORK, StepDone
from compress.tables import Row, grid, interval, megabytes, milliseconds, percent
from runtimes import FeedError, Unavailable, VerifyError

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.evalset import EvalSet

# What an ablation leaves beside the published bundles.
FILES = ("ablation.json", "ablation.md")
HEADER = ("after", "model", "zero-shot top-1", "questions right", "graphs", "one frame", "faster than first", "seconds")
SECONDS = 1.0  # of timing per row


class Ablation:
    """The rows of a run so far. `add` is for `run_steps(on_step=...)`."""

    def __init__(self, out: Path, recipe: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self._out, self._recipe = out.resolve(), recipe
        self._folder = self._out / WORK / "ablation"
        self.files = tuple(self._out / name for name in FILES)

    def add(self, done: StepDone) -> None:
        """Measure what the step made, or read it if that was done under the step's key; write the files again.

        Raises Unavailable without a CPU engine, and the SDK's errors.
        """
        file = self._folder / f"{done.folder.name}.json"
        row = read_record(file)
        if row.get("key") != done.key or not all((self._out / name).exists() for name in row["bundles"]):
            self._folder.mkdir(exist_ok=True)
            row = {"key": done.key, "step": done.name, "bundles": [], **self._measured(done)}
            write_record(file, row)
        self.rows.append({**row, "seconds": done.draft.seconds[done.name]})
        table = {"recipe": self._recipe, "seed": done.draft.seed, "split": "val", "rows": self.rows}
        for path, text in zip(self.files, (json.dumps(table, indent=1) + "\n", self.markdown()), strict=True):
            path.write_text(text, encoding="utf-8")

    def markdown(self) -> str:
        """ablation.md."""
        return (
            f"# {self._recipe}: what each step gave and cost\n\nThe model as it stands after each step, on the "
            f"validation split{self._where()}; a step with dashes made no model. Brackets hold 95 % intervals. Each "
            "row is timed in turn with the first model (single-stream, a frame in memory to a unit vector): compare "
            f"the ratios, not the milliseconds.\n\n{grid([HEADER, *self._cells()])}"
        )

    def table(self) -> Table:
        """The rows for a terminal; intervals stand on lines of their own."""
        from rich.table import Column, Table

        columns = (Column(text, no_wrap=len(text) < 12) for text in HEADER)
        table = Table(*columns, title=f"{self._recipe}: after each step{self._where()}, validation", show_lines=True)
        for row in self._cells():
            table.add_row(*(cell.replace(" [", "\n[").replace(" (", "\n(") for cell in row))
        return table

    def _where(self) -> str:
        return next((f", {row['target']}" for row in self.rows if row["bundles"]), "")

    def _cells(self) -> list[Row]:
        return [(row["step"], *_figures(row), f"{row['seconds']:.0f}") for row in self.rows]

    def _measured(self, done: StepDone) -> dict[str, Any]:
        """The figures of the model that the step made; none if it made none."""
        made = subject(done.before, done.draft)
        if made is None:
            return {}
        corpus = open_dataset(done.draft.dataset.name, done.draft.dataset.fields).load()
        if made == "bundle":
            bundle = done.draft.bundles["student"]
        else:
            bundle = interim_bundle(done.draft, made, corpus, self._folder / done.folder.name)
        first = self._out / next((row["bundles"][0] for row in self.rows if "ms" in row), bundle)
        target = str(cpu_targets()[0])
        cell, split = Cell(target, precision_of(bundle)), evalset(corpus, "val")
        about = {
            "model": f"{'teacher' if made == 'teacher' else 'student'} {cell.precision}",
            "bundles": [path.relative_to(self._out).as_posix() for path in (bundle, first)],
            "target": target,
        }
        try:
            with bar(f"ablate: {done.name}", len(split.images)) as tick:
                result = evaluate(bundle, split, cell, tick)
            timed = _timed(first, bundle, target, split)
        except (FeedError, Unavailable, VerifyError) as error:  # a model that gives zeros is a finding, not the end
            return {**about, "why": str(error)}
        return {
            **about,
            **timed,
            "compute": result.ran_on["image"][1],
            "top1": dataclasses.asdict(wilson(result.correct)),
            "answers": _answers(result, split),
            "bytes": sum(graph_bytes(bundle, result).values()),
        }


def _answers(result: Result, split: EvalSet) -> dict[str, Any] | None:
    """The share of questions answered rightly; None for a model without answers."""
    return None if result.answered is None else dataclasses.asdict(clustered(result.answered, asked_of(split)))


def _timed(first: Path, bundle: Path, target: str, split: EvalSet) -> dict[str, Any]:
    """Milliseconds of the image path, and how many times faster than the first model: in turn."""
    frame = sdk.read_frame(split.images[0])
    with (
        sdk.load(first, on=target, precision=precision_of(first)) as a,
        sdk.load(bundle, on=target, precision=precision_of(bundle)) as b,
    ):
        one, two = (functools.partial(model.embed_images, frame) for model in (a, b))
        pair = paired_latency(one, two, min_seconds=SECONDS)
    return {"ms": dataclasses.asdict(pair.b_ms), "speedup": dataclasses.asdict(pair.ratio)}


def _figures(row: dict[str, Any]) -> Row:
    """The cells between the step's name and its seconds."""
    if not row["bundles"]:
        return ("-",) * (len(HEADER) - 2)
    if "why" in row:
        return (row["model"], row["why"], *("-",) * (len(HEADER) - 4))
    return (
        row["model"],
        f"{percent(row['top1'])} (n={row['top1']['n']})",
        f"{percent(row['answers'])} (n={row['answers']['n']})" if row["answers"] else "-",
        megabytes(row["bytes"]),
        f"{milliseconds(row['ms'])} ({row['compute']})",
        f"{interval(row['speedup'], 2)}",
    )
