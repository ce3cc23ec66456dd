"""The ways from a frame, or from a JPEG file, to the model's square that `benchmarks/resize.py` compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import cv2
import numpy as np

from runtimes import Unavailable
from sdk.frames import read_frame
from sdk.resize import ENOUGH, Frame, least_side, prepare

PIL, EXACT, LINEAR, OURS = "PIL bicubic", "OpenCV area (exact)", "OpenCV linear", "area (ours)"
WHOLE, REDUCED = "JPEG, whole, exact", "JPEG, reduced, ours"
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


def array_ways(frames: Sequence[Frame], size: int) -> Ways:
    """From RGB frames (for PIL, from images of its own) to the model's squares. Raises Unavailable without Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise Unavailable(f"the comparison needs Pillow ({error}); run: pip install 'edge-pupil[bench]'") from error

    def bicubic(image: Image.Image) -> Frame:  # antialiased
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None))

    return {
        PIL: [partial(bicubic, Image.fromarray(frame)) for frame in frames],
        EXACT: [partial(exact, frame, size) for frame in frames],
        LINEAR: [partial(linear, frame, size) for frame in frames],
        OURS: [partial(prepare, frame, size) for frame in frames],
    }


def file_ways(frames: Sequence[Frame], size: int) -> Ways:
    """From the bytes of JPEG files to the model's squares; `reduced` as the SDK reads files."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    files = [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1].tobytes() for frame in frames]

    def whole(data: bytes) -> Frame:
        return exact(read_frame(data), size)

    def reduced(data: bytes) -> Frame:
        return prepare(read_frame(data, least=least_side(size)), size)

    return {WHOLE: [partial(whole, data) for data in files], REDUCED: [partial(reduced, data) for data in files]}
