"""Texts -> float32 (N, D), unit norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sdk.tasks import Scene


def task(scene: Scene) -> Callable[..., NDArray[np.float32]]:
    """`(texts) -> float32 (N, D)`. Raises FeedError, or Unavailable in a bundle slimmed with --no-text."""

    def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        return scene.embed.texts(texts)[0]

    return embed_texts
