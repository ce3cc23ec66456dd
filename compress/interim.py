"""The model as it stands between two steps, as a bundle: measured through the SDK, like a finished one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

from benchmarks.evaluate import Result
from compress.assemble import assemble
from compress.data import Corpus
from compress.deploy import contents
from compress.draft import Draft, ModelFiles
from sdk.bundle import open_bundle

GOLDEN = 8
# Nothing here is shipped, and of a model that is only cut, engines may think differently: any answer will do.
ANY = 2.0


def subject(before: Draft, after: Draft) -> Literal["bundle", "student", "teacher"] | None:
    """What a step made that can be evaluated: the student's bundle, a student, a teacher, or none of them."""
    if after.bundles.get("student") != before.bundles.get("student"):
        return "bundle"
    if after.student != before.student:
        return "student"
    return "teacher" if after.teacher != before.teacher else None


def interim_bundle(draft: Draft, who: Literal["teacher", "student"], corpus: Corpus, bundle: Path) -> Path:
    """Write a bundle of the draft's model to `bundle`, in place of what a killed call left there.

    A model without graphs is exported for it, into the folder "export" beside it, which goes again. Raises Unavailable
    without a CPU engine.
    """
    from compress.export import export_model

    scratch = bundle.with_name("export")
    for left in (bundle, scratch, *bundle.parent.glob(f".{bundle.name}-*")):
        shutil.rmtree(left, ignore_errors=True)
    model: ModelFiles = getattr(draft, who)
    if not model.graphs:
        scratch.mkdir(parents=True)
        paths = export_model(model, scratch)
        model = dataclasses.replace(model, graphs={tower: {"fp32": path} for tower, path in paths.items()})
    assemble(model, contents(draft, corpus, who, GOLDEN), bundle, tolerate=lambda *_: {"*": ANY})
    shutil.rmtree(scratch, ignore_errors=True)
    return bundle


def precision_of(bundle: Path) -> str:
    """ "int8" for a bundle that holds an int8 image tower, else "fp32"."""
    stored = {graph.stored for graph in open_bundle(bundle).manifest.graphs["image"].values()}
    return "int8" if "int8" in stored else "fp32"


def graph_bytes(bundle: Path, result: Result) -> dict[str, int]:
    """Tower -> bytes of the graph that ran."""
    manifest = open_bundle(bundle).manifest
    return {
        tower: manifest.files[manifest.graphs[tower][variant].file].bytes
        for tower, (variant, _) in result.ran_on.items()
    }
