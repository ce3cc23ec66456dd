"""Random changes to frames that a teacher and its students see alike: seeded by (seed, view, index), so repeatable.

The store keeps the teacher's vector of each view, never the pixels (dataset reinforcement, Faghri et al. 2023, arXiv
2303.08983): a student makes the same pixels again from the same numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from runtimes import RecipeError

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Augment:
    """What may happen to a frame.

    `flip`, `rotate`: mirror, and turn by quarter turns. `shift`: up to this share of the edge, each way. `scale`:
    zoom by up to this share, in or out. `brightness`: factor within 1 +- this; keep it small where colour names
    must hold (gray against black).
    """

    flip: bool = True
    rotate: bool = True
    shift: float = 0.08
    scale: float = 0.12
    brightness: float = 0.04

    def __post_init__(self) -> None:
        for name in ("shift", "scale", "brightness"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"augment {name} must lie in 0..1 (a share), got {getattr(self, name)}")

    def __call__(self, frame: Frame, seed: int, view: int, index: int) -> Frame:
        """uint8 (S, S, 3) to uint8 (S, S, 3), the same for the same numbers. View 0 is the frame as it is."""
        if view == 0:
            return frame
        rng = np.random.default_rng((seed, view, index))
        if self.rotate:
            frame = np.rot90(frame, int(rng.integers(4)))
        if self.flip and rng.random() < 0.5:
            frame = frame[:, ::-1]
        size = frame.shape[0]
        zoom = 1 + rng.uniform(-self.scale, self.scale)
        shift = rng.uniform(-self.shift, self.shift, 2) * size
        corner = (1 - zoom) * (size - 1) / 2 + shift  # zooms about the centre
        matrix = np.array([[zoom, 0, corner[0]], [0, zoom, corner[1]]], np.float32)
        moved = cv2.warpAffine(np.ascontiguousarray(frame), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        factor = 1 + rng.uniform(-self.brightness, self.brightness)
        changed: Frame = np.clip(np.rint(moved * factor), 0, 255).astype(np.uint8)
        return changed


def augment_batch(frames: Frame, indices: NDArray[np.int64], augment: Augment, seed: int, view: int) -> Frame:
    """uint8 (N, S, S, 3): the frames at `indices` of (M, S, S, 3), each changed by its own draw."""
    return np.stack([augment(frames[index], seed, view, int(index)) for index in indices])
