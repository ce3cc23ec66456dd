"""pack: measure the gated bundles on the test split, once, and publish them with what was measured written in.

The graphs are the very files that passed the gate: nothing is folded, converted or re-run in between.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

from compress.data import open_dataset
from compress.draft import Draft
from compress.latency import parse_latency
from runtimes import RecipeError


@dataclass(frozen=True)
class Pack:
    """`seconds`: how long each pair of models is timed."""

    needs: ClassVar = ("bundles",)
    makes: ClassVar = ("report",)
    named: ClassVar = True

    seconds: float = 3.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise RecipeError(f"pack.seconds must be above 0, got {self.seconds:g}")

    def run(self, draft: Draft) -> Draft:
        """Writes DIR/eval, DIR/teacher, DIR/student and the teacher's PyTorch programs beside it, and the step's
        measured.json for the report. Where prune.latency was asked for, the metric pack.latency_ms says what became of
        it."""
        from benchmarks.evalset import read_evalset
        from compress.deploy import evalset
        from compress.measure import measure
        from compress.programs import write_programs
        from compress.publish import publish, publish_evalset
        from compress.timed_cut import time_packed

        gated = draft.bundles
        if set(gated) != {"teacher", "student"}:
            raise RecipeError("[pack] publishes what [gate] let through; put a [gate] before it")
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        publish_evalset(evalset(corpus, "test"), draft.out / "eval")
        train = [(question.text, question.answer) for question in corpus.train.questions]
        programs = write_programs(draft.need("teacher", "pack"), draft.out / "teacher.pt2")
        test = read_evalset(draft.out / "eval")
        measured = measure(gated["teacher"], gated["student"], programs[0], test, train, self.seconds)
        table = publish(gated, draft.out, draft.recipe, corpus, measured)
        report = draft.folder / "measured.json"
        report.write_text(json.dumps(table, indent=1), encoding="utf-8")
        if "prune.latency" in draft.metrics:
            target = parse_latency(str(draft.metrics["prune.latency"])).target
            draft = draft.with_metrics("pack", latency_ms=time_packed(draft.out / "student", target))
        published = {who: draft.out / who for who in gated}
        return dataclasses.replace(
            draft, bundles=published, programs=programs, evalset=draft.out / "eval", report=report
        )
