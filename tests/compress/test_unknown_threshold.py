"""None of these: the share that was asked for is refused, and nothing else of the bundle changes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import sdk
from benchmarks.evaluate import Cell, evaluate
from compress.unknown_threshold import unknown_threshold, write_threshold
from sdk.bundle import open_bundle
from tests.evalsets import shop_evalset


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_share_that_was_asked_for_lies_below(colours: Path, tmp_path: Path, share: float) -> None:
    (tmp_path / "photos").mkdir()
    evalset = shop_evalset(tmp_path / "photos")
    result = evaluate(colours, evalset, Cell("ort:cpu", "fp32"), lambda text: None)
    path = tmp_path / "bundle"
    shutil.copytree(colours, path)
    threshold = unknown_threshold(open_bundle(path), result, evalset, share)
    write_threshold(path, threshold)
    before, after = open_bundle(colours).manifest, open_bundle(path).manifest
    assert after == dataclasses.replace(before, unknown_threshold=threshold)
    with sdk.load(path, on="ort:cpu", precision="fp32") as student:
        labelled = [image for image, label in zip(evalset.images, evalset.label, strict=True) if label >= 0]
        known = [answers[0].known for answers in student.classify(labelled)]
    assert np.mean(known) == pytest.approx(1 - share, abs=1 / len(known))
