"""Frames -> float32 (N, D), unit norm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sdk.tasks import Scene, one_or_many


def task(scene: Scene) -> Callable[..., NDArray[np.float32]]:
    """`(frames, color="rgb") -> float32 (N, D)`; one frame alone is N = 1. Raises FeedError."""

    def embed_images(frames: object, color: str = "rgb") -> NDArray[np.float32]:
        return scene.embed.images(one_or_many(frames)[0], color)

    return embed_images
