"""The ways from a frame, or from a JPEG file, to the model's square that `benchmarks/resize.py` compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np

from runtimes import Unavailable
from sdk.frames import read_frame
from sdk.pil_resize import FILTERS
from sdk.resize import ENOUGH, Frame, least_side, prepare

PIL, EXACT, LINEAR, OURS = "Pillow", "OpenCV area (exact)", "OpenCV linear", "ours"
WHOLE, READ = "JPEG, whole, reference", "JPEG, as the SDK reads it"
QUALITY = 90  # of the JPEG files

# By name, one call per frame; the first is what the others' time is compared with.
Ways = Mapping[str, Sequence[Callable[[], Frame]]]


def exact(frame: Frame, size: int) -> Frame:
    """The exact mean that `area` stands for: uint8 (size, size, 3). `prepare` gives it to small frames itself."""
    if min(frame.shape[:2]) < ENOUGH * size:
        return prepare(frame, size)
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def linear(frame: Frame, size: int) -> Frame:
    """Single bilinear pixels, which alias: uint8 (size, size, 3)."""
    return np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def pillow(image: Any, size: int, resize: str) -> Frame:
    """Pillow's own, antialiased: of a PIL image uint8 (size, size, 3), bilinear for `pil-bilinear`, else bicubic."""
    from PIL import Image

    kind = Image.Resampling.BILINEAR if resize == "pil-bilinear" else Image.Resampling.BICUBIC
    return np.asarray(image.resize((size, size), kind, reducing_gap=None))


def reference(resize: str) -> str:
    """The way that a resize of sdk/resize.py stands for: the exact mean, or Pillow's."""
    return PIL if resize in FILTERS else EXACT


def wanted(frame: Frame, size: int, resize: str) -> Frame:
    """What the reference makes of a frame: uint8 (size, size, 3). Raises Unavailable without the Pillow it may take."""
    if reference(resize) == EXACT:
        return exact(frame, size)
    return pillow(pil_image(frame), size, resize)


def pil_image(frame: Frame) -> Any:
    """A frame as an image of Pillow's. Raises Unavailable without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise Unavailable(f"the comparison needs Pillow ({error}); run: pip install 'edge-pupil[bench]'") from error
    return Image.fromarray(frame)


def array_ways(frames: Sequence[Frame], size: int, resize: str = "area") -> Ways:
    """From RGB frames (for Pillow, from images of its own) to the model's squares; ours is `resize`. Raises Unavailable
    without Pillow."""
    return {
        PIL: [partial(pillow, pil_image(frame), size, resize) for frame in frames],
        EXACT: [partial(exact, frame, size) for frame in frames],
        LINEAR: [partial(linear, frame, size) for frame in frames],
        OURS: [partial(prepare, frame, size, resize) for frame in frames],
    }


def file_ways(frames: Sequence[Frame], size: int, resize: str = "area") -> Ways:
    """From the bytes of JPEG files to the model's squares: by the reference of `resize`, and as the SDK does it."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    files = [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1].tobytes() for frame in frames]

    def whole(data: bytes) -> Frame:
        return wanted(read_frame(data), size, resize)

    def read(data: bytes) -> Frame:
        return prepare(read_frame(data, least=least_side(size, resize)), size, resize)

    return {WHOLE: [partial(whole, data) for data in files], READ: [partial(read, data) for data in files]}
