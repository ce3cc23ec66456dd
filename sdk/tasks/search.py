"""Which of many vectors are nearest to a text or a frame: retrieval by cosine in the joint space (CLIP)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError
from sdk.bundle import NORM_SLACK
from sdk.tasks import Scene, cosines, count_of, one_or_many


@dataclass(frozen=True)
class Hit:
    """A frozen result. `index`: the row of `among`. `score`: its cosine to the query, -1..1. `degraded` as in
    Answer."""

    index: int
    score: float
    degraded: str = ""


def task(scene: Scene) -> Callable[..., list[Hit]]:
    """`(query, among, k=5, color="rgb") -> [Hit, ...]`: the k rows of `among` nearest to the query, best first; ties
    stay in order.

    `query`: a text if it is a str, else one frame as in classify, so a file is given as a Path. `among`: float32
    (N, D), unit norm, from embed_images or embed_texts of this student. Raises FeedError; Unavailable for a text in a
    bundle without a text tower.
    """

    def search(query: object, among: NDArray[np.float32], k: int = 5, color: str = "rgb") -> list[Hit]:
        count = count_of(k)
        _check_vectors(among, scene.bundle.manifest.dim)
        if isinstance(query, str):
            vector = scene.embed.texts([query])[0]
        elif isinstance(query, Iterator) or not one_or_many(query)[1]:
            kind = "4-D array" if isinstance(query, np.ndarray) else type(query).__name__
            raise FeedError(f"search takes one text or one frame, but a {kind} came; search for one at a time")
        else:
            vector = scene.embed.images([query], color)
        row = cosines(vector, among)[0]
        return [Hit(int(i), float(row[i])) for i in np.argsort(-row, kind="stable")[:count]]

    return search


def _check_vectors(among: object, dim: int) -> None:
    made = "make them with embed_images or embed_texts of this student"
    if not isinstance(among, np.ndarray) or among.dtype != np.float32 or among.ndim != 2:
        what = f"{among.dtype} {among.shape}" if isinstance(among, np.ndarray) else f"a {type(among).__name__}"
        raise FeedError(f"search wants its vectors as float32 (N, {dim}), but {what} came; {made}")
    if among.shape[1] != dim:
        raise FeedError(
            f"search wants vectors of {dim} values, but these have {among.shape[1]}: they are of another space; {made}"
        )
    if not len(among):
        raise FeedError(f"there are no vectors to search among; {made}")
    wrong = np.flatnonzero(~(np.abs(np.sqrt(np.vecdot(among, among)) - 1) < NORM_SLACK))  # a NaN is not below
    if len(wrong):
        raise FeedError(f"row {wrong[0]} of the vectors to search among is not of unit length; {made}")
