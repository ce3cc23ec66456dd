"""pack: measure the gated bundles on the test split, once, and publish them with what was measured written in.

The graphs are the very files that passed the gate: nothing is folded, converted or re-run in between.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compress.data import open_dataset
from compress.draft import Draft
from runtimes import RecipeError

if TYPE_CHECKING:
    from benchmarks.evalset import EvalSet
    from sdk.manifest import Figure


CARD = "card.md"


@dataclass(frozen=True)
class Pack:
    """`seconds`: how long each pair of models is timed."""

    needs: ClassVar = ("bundles",)
    makes: ClassVar = ("report",)

    seconds: float = 3.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise RecipeError(f"pack.seconds must be above 0, got {self.seconds:g}")

    def run(self, draft: Draft) -> Draft:
        """Writes DIR/eval, DIR/teacher, DIR/student and the teacher's PyTorch programs beside it, and the step's
        measured.json for the report."""
        from benchmarks.evalset import read_evalset
        from compress.card import card
        from compress.deploy import evalset
        from compress.measure import measure
        from compress.programs import write_programs
        from sdk.bundle import open_bundle

        gated = draft.bundles
        if set(gated) != {"teacher", "student"}:
            raise RecipeError("[pack] publishes what [gate] let through; put a [gate] before it")
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        publish_evalset(evalset(corpus, "test"), draft.out / "eval")
        train = [(question.text, question.answer) for question in corpus.train.questions]
        measured = measure(gated["teacher"], gated["student"], read_evalset(draft.out / "eval"), train, self.seconds)
        quality = {who: measured.quality(who) for who in gated}
        about = card(open_bundle(gated["student"]), corpus, measured.table, measured.wrong("student"))
        for who, path in gated.items():
            text = about if who == "student" else None
            publish_bundle(path, draft.out / who, quality, f"{corpus.name} test", text)
        programs = write_programs(draft.need("teacher", "pack"), draft.out / "teacher.pt2")
        report = draft.folder / "measured.json"
        report.write_text(json.dumps(measured.table, indent=1), encoding="utf-8")
        published = {who: draft.out / who for who in gated}
        return dataclasses.replace(
            draft, bundles=published, programs=programs, evalset=draft.out / "eval", report=report
        )


def publish_bundle(
    gated: Path, out: Path, quality: dict[str, dict[str, Figure]], split: str, card: str | None = None
) -> None:
    """Write a gated bundle to `out`, replacing an older one, with `quality` (who -> metric -> figure) and the model
    card inside."""
    from sdk.bundle import open_bundle
    from sdk.writer import Source, write_bundle

    bundle = open_bundle(gated)
    metrics = sorted({metric for figures in quality.values() for metric in figures})
    table: dict[str, dict[str, Any]] = {m: {who: f[m] for who, f in quality.items() if m in f} for m in metrics}
    provenance = {**bundle.manifest.provenance, "measured_on": split}
    manifest = dataclasses.replace(bundle.manifest, quality=table, provenance=provenance)
    files: dict[str, Source] = {name: bundle.file(name) for name in bundle.manifest.files}
    if card is not None:
        manifest, files = dataclasses.replace(manifest, card=CARD), {**files, CARD: card.encode()}
    write_bundle(out, manifest, files, replace=True)


def publish_evalset(evalset: EvalSet, out: Path) -> None:
    """Write the evaluation folder beside its place, then swap it in."""
    from benchmarks.evalset import write_evalset

    building = out.with_name(out.name + ".tmp")
    shutil.rmtree(building, ignore_errors=True)
    write_evalset(building, evalset)
    shutil.rmtree(out, ignore_errors=True)
    building.replace(out)
