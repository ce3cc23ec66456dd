"""How frames of each kind come to the model's size, by the colour bundle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import sdk
from runtimes import FeedError
from sdk.embed import Embedder
from sdk.frames import read_frame
from sdk.resize import Frame, prepare
from tests.bundles import damage
from tests.towers import SIZE


@pytest.fixture(scope="module")
def embedder(colours: Path) -> Embedder:
    return Embedder(sdk.open_bundle(colours), lambda graph, feeds: {})


def noise(*shape: int) -> Frame:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "shape", [(200, 300, 3), (200, 300, 4), (200, 300), (200, 300, 1), (40, 30, 3), (SIZE, SIZE, 3)]
)
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_the_order_of_channels_is_turned_before_or_after(
    embedder: Embedder, shape: tuple[int, ...], color: str
) -> None:
    frame = noise(*shape)
    ready = embedder.prepare(frame, color)
    np.testing.assert_array_equal(ready, prepare(read_frame(frame, color), SIZE))
    assert ready.flags.c_contiguous


def test_large_jpegs_are_decoded_at_a_reduced_scale(embedder: Embedder, tmp_path: Path) -> None:
    for side in (2 * SIZE, 4 * SIZE - 2, 4 * SIZE - 1, 8 * SIZE, 20 * SIZE):
        path = tmp_path / f"{side}.jpg"
        cv2.imwrite(str(path), cv2.resize(noise(4, 4, 3), (2 * side, side), interpolation=cv2.INTER_CUBIC))
        data = path.read_bytes()
        want = prepare(read_frame(data, least=2 * SIZE), SIZE)
        whole = prepare(read_frame(data), SIZE)
        assert np.abs(want.astype(int) - whole).mean() < 3
        for color in ("rgb", "bgr"):  # which is for arrays only
            for source in (path, str(path), data, memoryview(data)):
                np.testing.assert_array_equal(embedder.prepare(source, color), want)
        assert np.array_equal(want, whole) == (side < 4 * SIZE - 1)


def test_jpegs_for_pillows_resize_are_decoded_whole(colours: Path, tmp_path: Path) -> None:
    image = {"resize": "pil-bicubic", "crop": "center-after"}
    bundle = sdk.open_bundle(damage(colours, tmp_path / "b", change=lambda table: table["image"].update(image)))
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), cv2.resize(noise(4, 4, 3), (40 * SIZE, 30 * SIZE), interpolation=cv2.INTER_CUBIC))
    made = Embedder(bundle, lambda graph, feeds: {}).prepare(path)
    np.testing.assert_array_equal(made, prepare(read_frame(path), SIZE, "pil-bicubic", "center-after"))
    assert not np.array_equal(made, prepare(read_frame(path, least=2 * SIZE), SIZE, "pil-bicubic", "center-after"))


def test_a_wrong_order_of_channels_is_refused(embedder: Embedder) -> None:
    with pytest.raises(FeedError, match="wanted color 'rgb' or 'bgr', got 'hsv'"):
        embedder.prepare(noise(20, 20, 3), "hsv")
