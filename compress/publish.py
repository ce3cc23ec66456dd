"""Publishing what was gated and measured: the evaluation set, and both bundles with the figures inside."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.evalset import EvalSet, write_evalset
from compress.card import card
from compress.data import Corpus
from compress.results import Measured
from sdk.bundle import Bundle, open_bundle
from sdk.manifest import Figure
from sdk.slim import slim
from sdk.writer import Source, write_bundle

CARD = "card.md"
# Tries until card and size agree: the second does, unless a digit more in the card makes a digit more in the size.
TRIES = 4


def publish(gated: Mapping[str, Path], out: Path, recipe: str, corpus: Corpus, measured: Measured) -> dict[str, Any]:
    """Write `out`/teacher and `out`/student, replacing older ones, named like `recipe`, with their figures, and the
    student with its model card. Returns measured.table with "size": bytes of what was published.

    The card tells the student's size, of which it is a part: it is written until both agree.
    """
    quality = {who: measured.quality(who) for who in gated}
    table, target = measured.table, measured.headline["student"][2]
    about = {"recipe": recipe, "measured_on": f"{corpus.name} test"}
    teacher = publish_bundle(gated["teacher"], out / "teacher", f"{recipe}-teacher", quality, about)
    text: str | None = None
    for _ in range(TRIES):
        student = publish_bundle(gated["student"], out / "student", f"{recipe}-student", quality, about, text)
        table = {**table, "size": sizes(teacher, student, target)}
        said = card(student, corpus, table, measured.wrong("student"))
        if said == text:
            break
        text = said
    return table


def publish_bundle(
    gated: Path,
    out: Path,
    name: str,
    quality: Mapping[str, Mapping[str, Figure]],
    about: Mapping[str, str],
    text: str | None = None,
) -> Bundle:
    """Write a gated bundle to `out` as `name`, replacing an older one, with `quality` (who -> metric -> figure) and the
    model card `text` inside, and `about` in its provenance."""
    bundle = open_bundle(gated)
    metrics = sorted({metric for figures in quality.values() for metric in figures})
    table = {m: {who: f[m] for who, f in quality.items() if m in f} for m in metrics}
    provenance = {**bundle.manifest.provenance, **about}
    manifest = dataclasses.replace(bundle.manifest, name=name, quality=table, provenance=provenance)
    files: dict[str, Source] = {each: bundle.file(each) for each in bundle.manifest.files}
    if text is not None:
        manifest, files = dataclasses.replace(manifest, card=CARD), {**files, CARD: text.encode()}
    return write_bundle(out, manifest, files, replace=True)


def sizes(teacher: Bundle, student: Bundle, target: str) -> dict[str, Any]:
    """Bytes of bundles as one target needs them (`python -m sdk slim`), and stored parameters per tower."""
    bundles = {"teacher": teacher, "student": student}
    with tempfile.TemporaryDirectory() as folder:
        slims = {
            "teacher_fp32": slim(teacher, target, Path(folder) / "teacher", precision="fp32"),
            "student_int8": slim(student, target, Path(folder) / "student", precision="int8"),
            "student_int8_no_text": slim(student, target, Path(folder) / "image", text=False, precision="int8"),
        }
        found = {name: bundle.size for name, bundle in slims.items()}

    def of_graphs(what: str) -> dict[str, dict[str, int]]:
        return {
            who: {tower: getattr(graphs["fp32"], what) for tower, graphs in bundle.manifest.graphs.items()}
            for who, bundle in bundles.items()
        }

    return {
        "slim_for": target,
        "bytes": {**found, "student_all_variants": student.size},
        "params": of_graphs("params"),
        "macs": of_graphs("macs"),
    }


def publish_evalset(evalset: EvalSet, out: Path) -> None:
    """Write the evaluation folder beside its place, then swap it in."""
    building = out.with_name(out.name + ".tmp")
    shutil.rmtree(building, ignore_errors=True)
    write_evalset(building, evalset)
    shutil.rmtree(out, ignore_errors=True)
    building.replace(out)
