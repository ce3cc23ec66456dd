"""The cosine below which a frame is "none of these", calibrated on the validation split."""

import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Result
from sdk.bundle import Bundle, open_bundle
from sdk.tasks import cosines
from sdk.writer import write_bundle


def unknown_threshold(bundle: Bundle, result: Result, evalset: EvalSet, share: float) -> float:
    """The threshold below which `share` (0..1) of the labelled images of `evalset` have their best cosine over the
    bundle's label bank. `result`: the bundle's on that set. What it refuses of other things, the report measures.
    """
    best = cosines(result.images[evalset.label >= 0], bundle.label_vectors).max(axis=1)
    return float(np.quantile(best.astype(np.float64), share, method="lower"))


def write_threshold(path: Path, threshold: float) -> None:
    """Write the threshold into the bundle at `path`; all else in it stays."""
    bundle = open_bundle(path)
    manifest = dataclasses.replace(bundle.manifest, unknown_threshold=threshold)
    write_bundle(path, manifest, {name: bundle.file(name) for name in bundle.manifest.files}, replace=True)
