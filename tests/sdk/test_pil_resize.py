"""`pil_resize` against Pillow itself, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sdk.pil_resize import FILTERS, pil_resize
from sdk.resize import Frame

PILLOWS = {"pil-bicubic": Image.Resampling.BICUBIC, "pil-bilinear": Image.Resampling.BILINEAR}
each_kind = pytest.mark.parametrize("kind", FILTERS)


def noise(*shape: int, extreme: bool = False) -> Frame:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return np.where(values > 127, 255, 0).astype(np.uint8) if extreme else values


def pillow(frame: Frame, kind: str, height: int, width: int) -> Frame:
    return np.asarray(Image.fromarray(frame).resize((width, height), PILLOWS[kind]))


def whole(frame: Frame, kind: str, height: int, width: int) -> Frame:
    return pil_resize(frame, kind, (height, width), (0, height), (0, width))


SHAPES = [
    ((480, 640), (224, 224)),
    ((640, 480), (298, 224)),
    ((1080, 1920), (224, 398)),
    ((37, 53), (224, 224)),
    ((300, 90), (100, 200)),
    ((224, 300), (224, 224)),
    ((300, 224), (224, 224)),
    ((97, 8), (1100, 16)),
    ((8, 9000), (8, 300)),
    ((5000, 8), (8, 8)),
    ((1920, 1080), (398, 224)),
    ((1920, 1080), (224, 224)),
    ((300, 60), (224, 224)),
]


@each_kind
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_every_pixel_is_pillows(shape: tuple[int, int], size: tuple[int, int], extreme: bool, kind: str) -> None:
    frame = noise(*shape, 3, extreme=extreme)  # extremes overshoot, and have to be limited
    out = whole(frame, kind, *size)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, pillow(frame, kind, *size))


@each_kind
def test_any_shape_is_pillows(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        (height, width), (h, w) = rng.integers(8, 300, 2).tolist(), rng.integers(8, 200, 2).tolist()
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        np.testing.assert_array_equal(whole(frame, kind, h, w), pillow(frame, kind, h, w))


@each_kind
@pytest.mark.parametrize(
    ("shape", "first"),  # of the sides that a resize to (60, 60) takes first
    [
        *(((80, 70), "widths"), ((81, 70), "heights"), ((79, 70), "widths"), ((61, 40), "heights")),
        *(((59, 20), "widths"), ((300, 90), "heights"), ((120, 90), "widths"), ((90, 300), "widths")),
    ],
)
def test_which_side_is_first(shape: tuple[int, int], first: str, kind: str) -> None:
    """Each pass rounds, so that the order shows."""
    frame = noise(*shape, 3, extreme=True)
    (height, width), filter_ = shape, PILLOWS[kind]
    between = (60, height) if first == "widths" else (width, 60)
    two = np.asarray(Image.fromarray(frame).resize(between, filter_).resize((60, 60), filter_))
    np.testing.assert_array_equal(whole(frame, kind, 60, 60), two)


@each_kind
@pytest.mark.parametrize(
    ("rows", "columns"),
    [((0, 90), (60, 90)), ((37, 1), (0, 200)), ((89, 1), (199, 1)), ((0, 1), (0, 1)), ((3, 80), (17, 150))],
)
def test_a_window_is_a_part_of_the_whole(rows: tuple[int, int], columns: tuple[int, int], kind: str) -> None:
    for shape in ((300, 701), (40, 50), (90, 700), (700, 200)):
        frame = noise(*shape, 3)
        part = pillow(frame, kind, 90, 200)[rows[0] :][: rows[1], columns[0] :][:, : columns[1]]
        np.testing.assert_array_equal(pil_resize(frame, kind, (90, 200), rows, columns), part)


@each_kind
def test_it_leaves_its_input_alone_and_takes_any_layout(kind: str) -> None:
    frame = noise(120, 90, 3)
    before = frame.copy()
    np.testing.assert_array_equal(whole(frame[:, ::-1], kind, 50, 40), whole(frame[:, ::-1].copy(), kind, 50, 40))
    np.testing.assert_array_equal(whole(frame[20:90, 3:], kind, 50, 40), whole(frame[20:90, 3:].copy(), kind, 50, 40))
    np.testing.assert_array_equal(whole(frame[:, 30:80], kind, 50, 40), whole(frame[:, 30:80].copy(), kind, 50, 40))
    np.testing.assert_array_equal(frame, before)


def test_no_filter_of_that_name() -> None:
    with pytest.raises(KeyError, match="pil-lanczos"):
        whole(noise(20, 20, 3), "pil-lanczos", 10, 10)
