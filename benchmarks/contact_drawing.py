"""Photos in a grid, each with texts below it that keep to their place."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Frame uint8 (H, W, 3) RGB, best `small`, texts one below the other, and what the first is: a key of COLOURS.
Photo = tuple[NDArray[np.uint8], list[str], str]

SIDE, TEXT, GAP, LINE = 1.9, 0.62, 0.12, 0.22  # inches: a photo, the texts below it, between cells, a line of title
LETTERS = 24  # of a line below a photo; where they are wide the letters get smaller
SIZE, TITLE_SIZE = 8.5, 10  # points
COLOURS = {"right": "#1a7f37", "refused": "#9a6700", "wrong": "#cf222e"}
PLAIN, EDGE = "#24292f", "#d0d7de"
DPI = 100


def draw(photos: Sequence[Photo], columns: int, title: Sequence[str], kind: str) -> bytes:
    """The encoded picture, `kind` ".jpg" or ".png".

    The first text of a photo is green where it is right, amber where it is right and was refused all the same, red,
    with a red frame around the photo, where it is wrong. Texts have two lines at most; what is longer ends in "…".
    """
    from matplotlib.figure import Figure

    rows = -(-len(photos) // columns)
    head = [line for text in title for line in textwrap.wrap(text, max(30, round(columns * (SIDE + GAP) * 12.5)))]
    width, top = columns * (SIDE + GAP) + GAP, LINE * (len(head) + 1)
    height = top + rows * (SIDE + TEXT + GAP)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    for index, line in enumerate(head):
        y = 1 - LINE * (index + 0.5) / height
        text = figure.text(0.5, y, line, ha="center", va="top", fontsize=TITLE_SIZE, color=PLAIN, parse_math=False)
        _fit(text, width - 2 * GAP)
    for index, photo in enumerate(photos):
        left = GAP + index % columns * (SIDE + GAP)
        upper = height - top - index // columns * (SIDE + TEXT + GAP)
        _cell(figure, photo, (left / width, upper / height), (SIDE / width, SIDE / height))
    file = io.BytesIO()
    quality = {} if kind == ".png" else {"quality": 90}
    figure.savefig(file, format=kind.removeprefix("."), pil_kwargs=quality)
    return file.getvalue()


def _cell(figure: Any, photo: Photo, corner: tuple[float, float], side: tuple[float, float]) -> None:
    """A photo whose upper left corner is at `corner`, and its texts. `corner` and `side`: shares of the figure."""
    frame, texts, mark = photo
    (left, upper), (wide, high) = corner, side
    axes = figure.add_axes((left, upper - high, wide, high))
    axes.imshow(frame)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=COLOURS[mark] if mark == "wrong" else EDGE, linewidth=3 if mark == "wrong" else 1)
    y = upper - high - 0.06 * high / SIDE
    for index, words in enumerate(texts):
        lines = textwrap.wrap(words.replace(" %", "\u00a0%"), LETTERS, max_lines=2, placeholder="…")
        colour = COLOURS[mark] if index == 0 else PLAIN
        where = {"ha": "center", "va": "top", "fontsize": SIZE, "linespacing": 1.1}
        text = figure.text(left + wide / 2, y, "\n".join(lines), color=colour, parse_math=False, **where)
        _fit(text, SIDE)
        y -= (len(lines) * SIZE * 1.3 / 72) * high / SIDE


def small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame uint8 (H, W, 3) with as many pixels as the picture can show, no side over 2 * SIDE * DPI."""
    share = 2 * SIDE * DPI / max(frame.shape[:2])
    if share >= 1:
        return frame
    return np.asarray(cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8)


def _fit(text: Any, inches: float) -> None:
    """Make letters smaller until the text is no wider."""
    wide = text.get_window_extent().width / DPI
    if wide > inches:
        text.set_fontsize(text.get_fontsize() * inches / wide)
