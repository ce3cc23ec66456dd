"""1920 x 1080 frames made of photos: a camera's picture, with more detail in it than a camera's picture has.

A mosaic has 6 x 4 cells of 320 x 270 pixels, each the middle of another photo, cut out and not scaled: scaling would
take out the detail that a careless resize trips over. Only a photo smaller than its cell is enlarged to fill it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from runtimes import RecipeError
from sdk.frames import read_frame
from sdk.resize import Frame

COLUMNS, ROWS = 6, 4
WIDTH, HEIGHT = 1920, 1080
MOST = 40  # mosaics: 6 MB each
KINDS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def mosaics(folder: Path) -> list[Frame]:
    """Mosaics of the photos below a folder, at most MOST, no photo twice, in an order drawn with a fixed seed.

    Raises RecipeError for too few photos, FeedError for one that cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    each = COLUMNS * ROWS
    if len(paths) < each:
        raise RecipeError(f"a mosaic takes {each} photos, but {folder} holds {len(paths)}; give a folder with more")
    order = np.random.default_rng(0).permutation(len(paths))[: min(MOST, len(paths) // each) * each]
    return [mosaic([read_frame(paths[index]) for index in some]) for some in order.reshape(-1, each)]


def mosaic(photos: Sequence[Frame]) -> Frame:
    """COLUMNS * ROWS photos, uint8 (H, W, 3), as one: uint8 (1080, 1920, 3), row by row."""
    height, width = HEIGHT // ROWS, WIDTH // COLUMNS
    cells = []
    for photo in photos:
        large = enlarged(photo, max(height / photo.shape[0], width / photo.shape[1]))
        top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
        cells.append(large[top : top + height, left : left + width])
    return np.vstack([np.hstack(cells[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS)])


def enlarged(photo: Frame, factor: float) -> Frame:
    """A photo with `factor` times the pixels a side, rounded up, bicubic; as it is where the factor is 1 or less."""
    if factor <= 1:
        return photo
    sides = math.ceil(photo.shape[1] * factor), math.ceil(photo.shape[0] * factor)
    return np.asarray(cv2.resize(photo, sides, interpolation=cv2.INTER_CUBIC), np.uint8)
