"""The model's square out of a frame of any size.

Students are trained through `prepare` and other languages port it, so it is part of the bundle format: a change here
makes every bundle out there a little wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtimes import BundleError, FeedError

Frame = NDArray[np.uint8]

# One bound for the size a bundle may ask for: below, no picture; above, a hostile or broken bundle.
MIN_SIZE, MAX_SIZE = 8, 4096


def prepare(frame: Frame, size: int, resize: str = "area", crop: str = "none") -> Frame:
    """Bring a uint8 (H, W, 3) frame to the model's C-contiguous uint8 (size, size, 3); `size` in pixels, 8..4096.

    `crop`: "none" stretches the whole frame to the square; "center" first cuts the largest centred square, side
    `s = min(H, W)`, from row `(H - s) // 2` and column `(W - s) // 2`.

    `resize`: "area", in two steps, each left out where it has nothing to do, each rounding to whole values:
    1. shrink to (min(H, size), min(W, size)): every output pixel is the mean of the input rectangle it covers, pixels
       cut by its border weighted by the part inside;
    2. enlarge to (size, size): bilinear between pixel centres, source position `(i + 0.5) * length / size - 0.5`,
       clamped to the border.
    Another implementation of these two may differ by 1 in a value (rounding), not by more.

    A frame that has the size already is returned as it is, not copied. Raises BundleError for an unknown `resize` or
    `crop` or a `size` out of range (they come from a bundle), FeedError for a frame of another dtype or shape.
    """
    if resize not in RESIZES:
        raise _unknown("resize", resize, RESIZES)
    if crop not in CROPS:
        raise _unknown("crop", crop, CROPS)
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise BundleError(f"wanted an image size of {MIN_SIZE}..{MAX_SIZE} pixels, got {size}; the bundle is damaged")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise FeedError(f"wanted a uint8 (H, W, 3) frame, got {frame.dtype} {frame.shape}; call read_frame first")
    if frame.shape[0] != size or frame.shape[1] != size:
        frame = RESIZES[resize](CROPS[crop](frame), size)
    return frame if frame.flags.c_contiguous else np.ascontiguousarray(frame)


def _unknown(what: str, name: str, known: dict[str, Any]) -> BundleError:
    names = " or ".join(repr(each) for each in known)
    return BundleError(f"wanted {what} {names}, got {name!r}; a newer version may know it: update the SDK")


def _area(frame: Frame, size: int) -> Frame:
    height, width = min(frame.shape[0], size), min(frame.shape[1], size)
    if (height, width) != frame.shape[:2]:
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if height < size or width < size:
        frame = np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    return frame


def _center(frame: Frame) -> Frame:
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]


RESIZES: dict[str, Callable[[Frame, int], Frame]] = {"area": _area}
CROPS: dict[str, Callable[[Frame], Frame]] = {"none": lambda frame: frame, "center": _center}
