"""The model's square out of a frame of any size.

Students are trained through `prepare` and other languages port it, so it is part of the bundle format: a change here
makes every bundle out there a little wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from runtimes import BundleError, FeedError
from sdk.pil_resize import FILTERS, pil_resize

Frame = NDArray[np.uint8]

# One bound for the size a bundle may ask for: below, no picture; above, a hostile or broken bundle.
MIN_SIZE, MAX_SIZE = 8, 4096
# Times the size, the sides between which two samples per pixel and axis stand for the mean: embeddings of mosaics of
# photos keep a mean cosine of 0.995 to the exact mean.
ENOUGH, _WIDEST = 2, 7


def prepare(frame: Frame, size: int, resize: str = "area", crop: str = "none") -> Frame:
    """Bring a uint8 (H, W, 3) frame to the model's C-contiguous uint8 (size, size, 3); `size` in pixels, 8..4096.

    `crop`: "none" stretches the whole frame to the square; "center" first cuts the largest centred square, side
    `s = min(H, W)`, from row `(H - s) // 2` and column `(W - s) // 2`. "center-after" and "center-after-even", not for
    "area", resize the short side to `size` and the long one to `size * long // short`, and cut the square afterwards:
    of the `spare` pixels of the long side they leave away `spare // 2` before it, or `spare / 2` rounded to even.

    `resize`: "area", the mean of the rectangle that a pixel covers, for large frames from samples, as near as a network
    can tell and several times as fast. Each step rounds to whole values and is left out where it has nothing to do:
    1. halve while both sides are at least `4 * size`: 2 x 2 pixels become `(a + b + c + d + 2) // 4`; a last odd row or
       column is dropped;
    2. if both sides are now at least `2 * size` and neither is over `7 * size`: scale to (2 * size, 2 * size), bilinear
       between pixel centres, source position `(i + 0.5) * length / (2 * size) - 0.5`, clamped to the border; halve;
    3. else shrink to (min(H, size), min(W, size)): every output pixel is the mean of the input rectangle it covers,
       pixels cut by its border weighted by the part inside; then enlarge to (size, size), bilinear as above.
    A frame with a side under `2 * size` so gets the exact mean. Another implementation may differ by 1 in a value
    (rounding), by 2 where a frame is both shrunk and enlarged, not by more.
    "pil-bicubic" and "pil-bilinear" are Pillow's (sdk/pil_resize.py), for models that were trained through it.

    A frame that has the size already is returned as it is, not copied. Raises BundleError for an unknown `resize` or
    `crop` or a `size` out of range (they come from a bundle), FeedError for a frame of another dtype or shape.
    """
    if resize not in RESIZES:
        raise _unknown("resize", resize, RESIZES)
    if crop not in crops(resize):
        raise _unknown(f"with resize {resize!r} a crop", crop, crops(resize))
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise BundleError(f"wanted an image size of {MIN_SIZE}..{MAX_SIZE} pixels, got {size}; the bundle is damaged")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise FeedError(f"wanted a uint8 (H, W, 3) frame, got {frame.dtype} {frame.shape}; call read_frame first")
    if frame.shape[0] != size or frame.shape[1] != size:
        if crop in CROPS_AFTER:
            frame = _cut_after(frame, size, resize, CROPS_AFTER[crop])
        else:
            frame = RESIZES[resize](CROPS[crop](frame), size)
    return frame if frame.flags.c_contiguous else np.ascontiguousarray(frame)


def crops(resize: str) -> tuple[str, ...]:
    """The crops that go with a resize: "area" knows squares only, so it must have one before."""
    return (*CROPS, *CROPS_AFTER) if resize in FILTERS else tuple(CROPS)


def least_side(size: int, resize: str = "area") -> int | None:
    """`least` of `read_frame` for a model of `size`, in pixels: a decoder need not give more than `resize` samples.
    None is the whole picture, of which Pillow's resizes use every pixel.

    Whoever reads files for `prepare` himself and wants what the SDK makes of them asks for this.
    """
    return None if resize in FILTERS else ENOUGH * size


def _unknown(what: str, name: str, known: Iterable[str]) -> BundleError:
    names = " or ".join(repr(each) for each in known)
    return BundleError(f"wanted {what} {names}, got {name!r}; a newer version may know it: update the SDK")


def _area(frame: Frame, size: int) -> Frame:
    # OpenCV is fast at 2 x 2 means and at bilinear samples; its exact mean costs more than a small student's inference.
    while min(frame.shape[:2]) >= 2 * ENOUGH * size:
        frame = _halved(frame)
    if min(frame.shape[:2]) >= ENOUGH * size and max(frame.shape[:2]) <= _WIDEST * size:
        return _halved(_resized(frame, 2 * size, 2 * size, cv2.INTER_LINEAR))
    frame = _resized(frame, min(frame.shape[0], size), min(frame.shape[1], size), cv2.INTER_AREA)
    return _resized(frame, size, size, cv2.INTER_LINEAR)


def _halved(frame: Frame) -> Frame:
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    return _resized(frame[: 2 * height, : 2 * width], height, width, cv2.INTER_AREA)


def _resized(frame: Frame, height: int, width: int, how: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=how), np.uint8)


def _center(frame: Frame) -> Frame:
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]


def _stretched(frame: Frame, size: int, kind: str) -> Frame:
    return pil_resize(frame, kind, (size, size), (0, size), (0, size))


def _cut_after(frame: Frame, size: int, kind: str, before: Callable[[int], int]) -> Frame:
    """`before` says how many of the pixels to spare lie before the square."""
    short = min(frame.shape[:2])
    height, width = (size * side // short for side in frame.shape[:2])
    return pil_resize(frame, kind, (height, width), (before(height - size), size), (before(width - size), size))


RESIZES: dict[str, Callable[[Frame, int], Frame]] = {
    "area": _area,
    **{kind: partial(_stretched, kind=kind) for kind in FILTERS},
}
CROPS: dict[str, Callable[[Frame], Frame]] = {"none": lambda frame: frame, "center": _center}
# As transformers rounds, and as torchvision does, and so open_clip.
CROPS_AFTER: dict[str, Callable[[int], int]] = {
    "center-after": lambda spare: spare // 2,
    "center-after-even": lambda spare: round(spare / 2),
}
