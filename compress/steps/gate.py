"""gate: is what will be deployed good enough? The student's bundle, opened by the SDK on every CPU engine that is here,
on the validation split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from compress.data import open_dataset
from compress.draft import Draft, ModelFiles
from runtimes import GateFailed, RecipeError


@dataclass(frozen=True)
class Gate:
    """`max_drop`: points (0..100) of zero-shot top-1 that the int8 student may lose to the teacher, and
    `max_map_drop` of text-to-image mAP (0..1), on the validation split and on every engine. `golden`: samples that the
    bundle carries to prove itself with.
    """

    needs: ClassVar = ("graphs",)
    makes: ClassVar = ("bundles",)

    max_drop: float = 1.0
    max_map_drop: float = 0.02
    golden: int = 8

    def __post_init__(self) -> None:
        if not (self.max_drop >= 0 and self.max_map_drop >= 0):  # so written, it refuses nan too
            raise RecipeError("gate.max_drop and gate.max_map_drop must not be negative")
        if not 2 <= self.golden <= 50:  # two, to be told apart; fifty, the smallest validation split
            raise RecipeError(f"gate.golden must lie in 2..50 samples, got {self.golden}")

    def check(self) -> None:
        """Raises Unavailable without a CPU engine."""
        from compress.engines import cpu_targets

        cpu_targets()

    def run(self, draft: Draft) -> Draft:
        """Writes candidate bundles of teacher and student into the step's folder and adds what was measured.

        Raises GateFailed, naming engine, metric and by how much, when the student lost too much.
        """
        from benchmarks.evaluate import Cell, evaluate
        from benchmarks.stats import paired_drop
        from compress.assemble import assemble
        from compress.deploy import contents, evalset
        from compress.engines import cpu_targets
        from compress.progress import bar

        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        bundles = {}
        for who in ("teacher", "student"):
            model: ModelFiles = draft.need(who, "gate")
            bundles[who] = draft.folder / who
            assemble(model, contents(draft, corpus, who, self.golden), bundles[who])
        val = evalset(corpus, "val")
        engines = [str(target) for target in cpu_targets()]
        cells = [
            (bundles["teacher"], Cell(engines[0], "fp32")),
            *((bundles["student"], Cell(e, "int8")) for e in engines),
        ]
        with bar("gate: validation", len(cells) * len(val.images)) as tick:
            teacher, *students = [evaluate(bundle, val, cell, tick) for bundle, cell in cells]
        metrics: dict[str, float | int | str] = {"n": len(teacher.correct)}
        failures = []
        for student in students:
            drop = paired_drop(teacher.correct, student.correct)
            lost = teacher.retrieval.drop_to(student.retrieval)
            on = student.cell.on
            metrics |= {f"{on}.drop": drop.value, f"{on}.drop_low": drop.low, f"{on}.drop_high": drop.high}
            metrics |= {f"{on}.map_drop": lost.value, f"{on}.map_drop_low": lost.low, f"{on}.map_drop_high": lost.high}
            if drop.value > self.max_drop:
                failures.append(f"{on} lost {drop.value:.2f} points of top-1 (at most {self.max_drop:g})")
            if lost.value > self.max_map_drop:
                failures.append(f"{on} lost {lost.value:.4f} of mAP (at most {self.max_map_drop:g})")
        if failures:
            raise GateFailed(
                f"the int8 student is refused on {len(teacher.correct)} validation images: {'; '.join(failures)}. "
                "Train longer (--set distill.epochs=...), or allow more (--set gate.max_drop=...)"
            )
        return dataclasses.replace(draft, bundles=bundles).with_metrics("gate", **metrics)
