"""Pillow's antialiased resize, to the bit, without Pillow: what CLIP, SigLIP and open_clip models were trained through.

A pixel is a weighted mean of the input pixels under a filter that is stretched by the scale when shrinking. Each axis
is resized by itself; each pass rounds to uint8, its weights being whole multiples of 2^-22 (Pillow's Resample.c).
Widths come first, but heights do where a frame loses more than twice as many rows as columns. That is the order of
Pillow 13; before it widths always came first, and some values of tall frames were 1 away.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]
Window = tuple[int, int]  # first, count: of the pixels of one side of the result

_BITS = 22
# Pixels along the resized axis that are worked on at once, and float64 values in all: what a cache holds.
_SPAN, _BLOCK = 64, 1 << 20


def _cubic(x: Values) -> Values:
    """Keys' kernel of a = -0.5 (1981, IEEE Transactions on Acoustics, Speech, and Signal Processing 29)."""
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.asarray(np.where(x < 1, near, np.where(x < 2, far, 0)))


def _triangle(x: Values) -> Values:
    return np.asarray(np.where(x < 1, 1 - x, 0))


# By the name in bundle.json: half the width of the filter at scale 1, and the filter of the distance.
FILTERS: dict[str, tuple[float, Callable[[Values], Values]]] = {
    "pil-bicubic": (2.0, _cubic),
    "pil-bilinear": (1.0, _triangle),
}


def pil_resize(frame: Pixels, kind: str, size: tuple[int, int], rows: Window, columns: Window) -> Pixels:
    """Of `frame`, uint8 (H, W, 3), resized to `size` (height, width) as Pillow does, the window of `rows` x `columns`.

    Returns uint8 (rows[1], columns[1], 3), equal to Pillow's. Only what the window needs is computed. `kind` is a name
    in FILTERS; KeyError for another.
    """
    (height, width), reach = frame.shape[:2], FILTERS[kind][0]
    # A pass runs along the first axis, over contiguous rows; for the other pass the frame is turned.
    if height > size[0] and height - size[0] > 2 * (width - size[1]):
        left, right = _reach(width, size[1], columns, reach)
        low = _resize(frame[:, left:right], (0, height), kind, size[0], rows)
        return _turned(_resize(_turned(low), (left, width), kind, size[1], columns))
    top, bottom = _reach(height, size[0], rows, reach)
    thin = _resize(_turned(frame[top:bottom]), (0, width), kind, size[1], columns)
    return _resize(_turned(thin), (top, height), kind, size[0], rows)


def _turned(frame: Pixels) -> Pixels:
    return np.asarray(cv2.transpose(frame), np.uint8)


def _reach(length: int, size: int, window: Window, support: float) -> Window:
    """From which input pixel to which (not included) the pixels of `window` reach."""
    scale = length / size
    reach = support * max(scale, 1.0)
    first, last = (window[0] + 0.5) * scale, (window[0] + window[1] - 0.5) * scale
    return max(0, int(first - reach + 0.5)), min(length, int(last + reach + 0.5))


def _resize(frame: Pixels, place: Window, kind: str, size: int, window: Window) -> Pixels:
    """One pass, along the first axis. `place` says where the frame begins in the side, and how long the side is."""
    offset, length = place
    if length == size:
        return frame[window[0] - offset :][: window[1]]
    flat = frame.reshape(len(frame), -1)
    out = np.empty((window[1], flat.shape[1]), np.uint8)
    step = max(1, int(_SPAN * min(1.0, size / length)))
    for at in range(0, window[1], step):
        count = min(step, window[1] - at)
        low, weights = _weights(length, size, (window[0] + at, count), kind)
        rows = flat[low - offset : low - offset + weights.shape[1]]
        block = max(1, _BLOCK // max(len(rows), count))
        for left in range(0, rows.shape[1], block):
            # Whole numbers below 2^53: the sums are exact, in whatever order they are taken.
            sums = weights @ rows[:, left : left + block].astype(np.float64)
            sums = np.floor((sums + (1 << (_BITS - 1))) / (1 << _BITS))
            out[at : at + count, left : left + block] = np.clip(sums, 0, 255)
    return out.reshape(window[1], *frame.shape[1:])


def _weights(length: int, size: int, window: Window, kind: str) -> tuple[int, Values]:
    """The first input pixel that the pixels of `window` read, and the weight (times 2^22) of it and those that follow,
    float64 (count, n)."""
    support, kernel = FILTERS[kind]
    scale = length / size
    stretch = max(scale, 1.0)
    centers = (np.arange(window[0], window[0] + window[1]) + 0.5) * scale
    lows = np.maximum((centers - support * stretch + 0.5).astype(np.int64), 0)
    highs = np.minimum((centers + support * stretch + 0.5).astype(np.int64), length)
    low = int(lows[0])
    where = np.arange(low, int(highs[-1]))
    inside = (where >= lows[:, None]) & (where < highs[:, None])
    raw = np.where(inside, kernel(np.abs((where - centers[:, None] + 0.5) * (1.0 / stretch))), 0)
    # As Pillow sums them, one after the other: np.sum goes by halves and rounds elsewhere.
    total = np.cumsum(raw, axis=1)[:, -1:]
    raw /= np.where(total == 0, 1, total)
    whole = raw * (1 << _BITS)
    return low, np.trunc(whole + np.copysign(0.5, whole))
