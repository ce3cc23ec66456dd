"""`prepare` against the written rule, computed here in plain NumPy."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from runtimes import BundleError, FeedError
from sdk.frames import read_frame
from sdk.pil_resize import FILTERS
from sdk.resize import Frame, crops, least_side, prepare

Values = np.ndarray[Any, Any]


def noise(*shape: int) -> Frame:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def covered(length: int, size: int) -> Values:
    """(size, length): the share of each input pixel in the mean of each output pixel."""
    edges = np.arange(size + 1) * length / size
    low = np.maximum(edges[:-1, None], np.arange(length))
    high = np.minimum(edges[1:, None], np.arange(length) + 1)
    return np.asarray(np.clip(high - low, 0, None) * size / length)


def bilinear(length: int, size: int) -> Values:
    """(size, length): the weight of each input pixel at each output pixel's centre."""
    where = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    return np.asarray(np.clip(1 - np.abs(where[:, None] - np.arange(length)), 0, None))


def weighted(values: Values, rows: Values, columns: Values) -> Values:
    return np.asarray(np.floor(np.einsum("ih,hwc,jw->ijc", rows, values, columns, optimize=True) + 0.5))


def halved(values: Values) -> Values:
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    four = values[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).sum((1, 3))
    return np.asarray((four + 2) // 4)


def exact(frame: Values, size: int) -> Values:
    """The mean, and bilinear where there are too few pixels."""
    h, w = frame.shape[:2]
    smaller = weighted(frame, covered(h, min(h, size)), covered(w, min(w, size)))
    return weighted(smaller, bilinear(min(h, size), size), bilinear(min(w, size), size))


def area_by_hand(frame: Frame, size: int) -> Values:
    """The rule of FORMAT.md in float64."""
    values = frame.astype(float)
    while min(values.shape[:2]) >= 4 * size:
        values = halved(values)
    h, w = values.shape[:2]
    if min(h, w) >= 2 * size and max(h, w) <= 7 * size:
        return halved(weighted(values, bilinear(h, 2 * size), bilinear(w, 2 * size)))
    return exact(values, size)


SMALL = [(64, 64), (192, 192), (100, 300), (300, 97), (8, 500), (96, 192), (33, 47)]
LARGE = [
    (480, 640),
    (720, 1280),
    (1080, 1920),
    (1081, 1923),
    (1920, 1080),
    (448, 449),
    (64, 448),
    (64, 449),
    (301, 999),
]


@pytest.mark.parametrize("size", [16, 96, 224])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE])
def test_area_follows_its_written_rule(shape: tuple[int, int], size: int) -> None:
    frame = noise(*shape, 3)
    out = prepare(frame, size)
    assert out.shape == (size, size, 3) and out.dtype == np.uint8 and out.flags.c_contiguous
    both = min(shape) < size < max(shape)  # shrunk along one side, enlarged along the other: each may differ by 1
    assert np.abs(out - area_by_hand(frame, size)).max() <= 1 + both


@pytest.mark.parametrize("shape", [(348, 348), (348, 464), (464, 348), (447, 2000)])
def test_a_frame_with_a_side_under_twice_the_size_is_the_exact_mean(shape: tuple[int, int]) -> None:
    frame = noise(*shape, 3)
    assert np.abs(prepare(frame, 224) - exact(frame, 224)).max() <= 1
    np.testing.assert_array_equal(prepare(frame, 224), cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("size", [192, 224, 260])
@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (1080, 1920), (2160, 3840)])
def test_what_is_sampled_is_near_the_exact_mean(shape: tuple[int, int], size: int) -> None:
    """Of a frame with edges and grain, which single bilinear pixels miss by far."""
    frame = cv2.resize(noise(60, 100, 3), shape[::-1], interpolation=cv2.INTER_NEAREST)
    frame = np.clip(frame.astype(int) + noise(*shape, 3) // 4 - 32, 0, 255).astype(np.uint8)
    mean = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA).astype(int)
    bilinear_away = np.abs(cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) - mean).mean()
    assert np.abs(prepare(frame, size) - mean).mean() < 0.4 * bilinear_away


def test_area_does_not_alias_and_keeps_constants() -> None:
    for shape, size in (((199, 400), 100), ((400, 400), 100), ((1080, 1920), 224)):
        stripes = np.zeros((*shape, 3), np.uint8)
        stripes[:, ::2] = 255
        assert set(np.unique(prepare(stripes, size))) <= {127, 128}
    for size in (8, 57, 300):
        assert (prepare(np.full((111, 57, 3), 201, np.uint8), size) == 201).all()
        assert (prepare(np.full((1111, 1357, 3), 201, np.uint8), size) == 201).all()


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (97, 64), (65, 64), (200, 150), (400, 720)])
def test_center_takes_the_largest_centred_square(shape: tuple[int, int]) -> None:
    frame, side = noise(*shape, 3), min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = np.ascontiguousarray(frame[top : top + side, left : left + side])
    np.testing.assert_array_equal(prepare(frame, side, crop="center"), square)
    np.testing.assert_array_equal(prepare(frame, 48, crop="center"), prepare(square, 48))
    assert prepare(frame, side, crop="center").flags.c_contiguous


def pillow(frame: Frame, height: int, width: int) -> Frame:
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


OBLONG = [
    (480, 640),
    (640, 480),
    (1080, 1920),
    (348, 464),
    (464, 348),
    (301, 999),
    (97, 64),
    (60, 61),
    (48, 200),
    (999, 301),
]


@pytest.mark.parametrize("shape", OBLONG)
def test_pil_bicubic_after_a_crop_before(shape: tuple[int, int]) -> None:
    frame, side = noise(*shape, 3), min(shape)
    np.testing.assert_array_equal(prepare(frame, 96, "pil-bicubic"), pillow(frame, 96, 96))
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = np.ascontiguousarray(frame[top : top + side, left : left + side])
    np.testing.assert_array_equal(prepare(frame, 96, "pil-bicubic", "center"), pillow(square, 96, 96))


@pytest.mark.parametrize("size", [48, 97, 224])
@pytest.mark.parametrize("shape", OBLONG)
def test_a_square_cut_after_is_that_of_the_processors(shape: tuple[int, int], size: int) -> None:
    """open_clip's, run here; that of transformers rounds another way."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    frame, short = noise(*shape, 3), min(shape)
    theirs = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size)])(Image.fromarray(frame))
    np.testing.assert_array_equal(prepare(frame, size, "pil-bicubic", "center-after-even"), np.asarray(theirs))
    full = pillow(frame, *(size * side // short for side in shape))
    for crop, before in (("center-after", lambda n: n // 2), ("center-after-even", lambda n: round(n / 2))):
        top, left = (before(side - size) for side in full.shape[:2])
        square = full[top : top + size, left : left + size]
        np.testing.assert_array_equal(prepare(frame, size, "pil-bicubic", crop), square)


def test_what_goes_with_what() -> None:
    assert crops("area") == ("none", "center")
    assert crops("pil-bicubic") == crops("pil-bilinear") == ("none", "center", "center-after", "center-after-even")
    assert least_side(224) == least_side(224, "area") == 448
    assert least_side(224, "pil-bicubic") is least_side(224, "pil-bilinear") is None


@pytest.mark.parametrize("resize", ["area", *FILTERS])
def test_a_frame_that_fits_is_returned_uncopied(resize: str) -> None:
    square = noise(16, 16, 3)
    for crop in crops(resize):
        assert prepare(read_frame(square), 16, resize, crop) is square


def test_pil_resizes_are_contiguous_and_take_extreme_frames() -> None:
    for crop in crops("pil-bicubic"):
        out = prepare(noise(50, 70, 3)[:, ::-1], 32, "pil-bicubic", crop)
        assert out.shape == (32, 32, 3) and out.dtype == np.uint8 and out.flags.c_contiguous
        long = prepare(np.full((8, 200_000, 3), 77, np.uint8), 512, "pil-bilinear", crop)
        assert long.shape == (512, 512, 3) and (long == 77).all()


@pytest.mark.parametrize("shape", [(100, 130), (500, 700)])
def test_prepare_leaves_its_input_alone_and_repeats(shape: tuple[int, int]) -> None:
    frame = noise(*shape, 3)
    before, threads = frame.copy(), cv2.getNumThreads()
    np.testing.assert_array_equal(prepare(frame, 64), prepare(frame, 64))
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(prepare(frame[:, ::-1], 64), prepare(frame[:, ::-1].copy(), 64))
    assert cv2.getNumThreads() == threads


def test_prepare_refusals() -> None:
    frame = noise(20, 20, 3)
    known = "'area' or 'pil-bicubic' or 'pil-bilinear'"
    with pytest.raises(BundleError, match=f"wanted resize {known}, got 'lanczos'; a newer version may know it: update"):
        prepare(frame, 16, resize="lanczos")
    for crop in ("top", "center-after"):  # `area` has no sides but the square's
        with pytest.raises(
            BundleError, match=f"wanted with resize 'area' a crop 'none' or 'center', got '{crop}'; a newer"
        ):
            prepare(frame, 16, crop=crop)
    for size in (0, -4, 7, 4097):
        with pytest.raises(BundleError, match=rf"wanted an image size of 8\.\.4096 pixels, got {size}"):
            prepare(frame, size)
    for wrong in (frame.astype(np.float32), frame[..., 0], frame[:0], noise(20, 20, 4)):
        with pytest.raises(FeedError, match=r"wanted a uint8 \(H, W, 3\) frame, got .*; call read_frame first"):
            prepare(wrong, 16)  # type: ignore[arg-type]
