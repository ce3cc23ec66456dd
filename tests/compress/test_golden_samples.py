"""Golden samples must be told apart easily by an engine that is right, and the worst case must be hard on int8."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from compress.golden_samples import farthest, gaps, golden_frames
from sdk.frames import read_frame
from sdk.golden import golden_arrays
from sdk.manifest import ImageSpec
from sdk.resize import Frame, prepare
from sdk.writer import npz_bytes
from tests.photos import grocery_root, picture


def unit(degrees: list[float]) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_each_sample_is_the_farthest_from_those_before() -> None:
    rows = unit([0, 5, 180, 95, 88, 269])
    assert farthest(rows, 4, 1) == [0, 2, 5, 4]
    assert farthest(rows, 3, 2) == [0, 1, 2], "the first ones are kept, however near they are"


def test_there_are_never_more_samples_than_rows() -> None:
    assert farthest(unit([0, 90]), 8, 1) == [0, 1]


def test_gaps_are_leads_in_probability() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 1e-9]]))
    np.testing.assert_allclose(gaps(logits), [0.5, 0.0], atol=1e-6)


def resized(frame: Frame, height: int, width: int, how: int = cv2.INTER_AREA) -> Frame:
    return np.asarray(cv2.resize(frame, (width, height), interpolation=how), np.uint8)


def halved(frame: Frame) -> Frame:
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    return resized(frame[: 2 * height, : 2 * width], height, width)


WRONG: dict[str, Callable[[Frame, int], Frame]] = {
    "the exact mean": lambda frame, size: resized(frame, size, size),
    "single bilinear pixels": lambda frame, size: resized(frame, size, size, cv2.INTER_LINEAR),
    "sampled without halving first": lambda frame, size: halved(resized(frame, 2 * size, 2 * size, cv2.INTER_LINEAR)),
    "halved, then the exact mean": lambda frame, size: resized(halved(frame), size, size),
    "halved, then single pixels": lambda frame, size: resized(halved(frame), size, size, cv2.INTER_LINEAR),
    "nearest, not bilinear": lambda frame, size: halved(resized(halved(frame), 2 * size, 2 * size, cv2.INTER_NEAREST)),
}


def away(way: Callable[[Frame, int], Frame], frame: Frame, size: int) -> int:
    return int(np.abs(way(frame, size).astype(int) - prepare(frame, size)).max())


def detailed(seed: int, side: int) -> Frame:
    noise = np.random.default_rng(seed).integers(-40, 41, (side, side, 3))
    return np.asarray((picture(seed, side) + noise).clip(0, 255), np.uint8)


@pytest.mark.parametrize("size", [16, 64, 260])
def test_golden_frames_prove_both_ways_of_the_resize(size: int) -> None:
    frames = golden_frames([detailed(seed, 2 * size) for seed in range(4)], size, 1)
    large, between, *rest = (frame.shape[:2] for frame in frames)
    assert 4 * size < large[0] < large[1] and large[0] % 2 == large[1] % 2 == 1
    assert size < between[0] < between[1] < 2 * size
    assert rest == [(size, size)] * 2
    assert not [name for name, way in WRONG.items() if away(way, frames[0], size) <= 1], "would pass as our resize"
    assert away(WRONG["single bilinear pixels"], frames[1], size) > 1
    assert away(WRONG["the exact mean"], frames[1], size) <= 1


@pytest.mark.parametrize("size", [64, 224, 260])
def test_golden_frames_of_real_photos_keep_to_their_budget_and_prove_as_much(size: int) -> None:
    paths = sorted((grocery_root() / "val").rglob("*.jpg"))[::37][:8]
    frames = golden_frames([read_frame(path) for path in paths], size, 1)
    spec = ImageSpec(size, "area", "none", (0.0,) * 3, (1.0,) * 3)
    assert len(frames) == 8
    assert not [name for name, way in WRONG.items() if away(way, frames[0], size) <= 1], "would pass as our resize"
    # The rest of 1.5 MB is for outputs and texts.
    assert len(npz_bytes(golden_arrays(frames, np.zeros((size, size, 3), np.uint8), (), spec, None))) < 1.4e6
