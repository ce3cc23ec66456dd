"""Random changes to frames that a teacher and its students see alike: seeded by seed, view and the frame itself, so
repeatable, and the same whatever other frames there are.

The store keeps the teacher's vector of each view, never the pixels (dataset reinforcement, Faghri et al. 2023, arXiv
2303.08983): a student makes the same pixels again from the same numbers.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtimes import RecipeError
from sdk.frames import prepare
from sdk.resize import MAX_SIZE

Frame = NDArray[np.uint8]
EVERY = 4  # pixels, of which one is enough to tell frames apart by
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Augment:
    """What may happen to a frame.

    `flip`, `rotate`: mirror, and turn by quarter turns. `crop`: the smallest share of the area that a random crop
    keeps, of a shape within 3:4 and 4:3 (Szegedy et al. 2015, arXiv 1409.4842); 1 keeps all. `source`: edge of the
    frames that are cut, in edges of what the teacher sees: above 1 crops stay sharp. A plain view is
    then resized twice, so for photos of another size it is not to the last bit what a device sees. `shift`: up to this
    share of the edge, each way. `scale`: zoom by up to this share, in or out. `brightness`, `contrast`, `saturation`:
    factors within 1 +- this; keep them small where colour names must hold (gray against black). `tint`: the same for
    red, green and blue each, as under another lamp.
    """

    flip: bool = True
    rotate: bool = True
    crop: float = 1.0
    source: float = 1.0
    shift: float = 0.08
    scale: float = 0.12
    brightness: float = 0.04
    contrast: float = 0.0
    saturation: float = 0.0
    tint: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "scale", "brightness", "contrast", "saturation", "tint"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"augment {name} must lie in 0..1 (a share), got {getattr(self, name)}")
        if not 0.05 <= self.crop <= 1:
            raise RecipeError(f"augment crop must lie in 0.05..1 (a share of the area), got {self.crop}")
        if not 1 <= self.source <= 4:
            raise RecipeError(
                f"augment source must lie in 1..4, in edges of what the teacher sees, got {self.source:g}"
            )

    def edge(self, size: int) -> int:
        """Edge in pixels of the frames to augment for a teacher that sees `size`."""
        return min(MAX_SIZE, round(self.source * size))

    def __call__(self, frame: Frame, size: int, seed: int, view: int) -> Frame:
        """uint8 (H, H, 3) to uint8 (size, size, 3), the same for the same numbers; what is cut and changed does not
        depend on `size`. View 0 is the frame as it is, resized."""
        if view == 0:
            return prepare(frame, size)
        rng = np.random.default_rng((seed, view, _number(frame)))
        if self.rotate:
            frame = np.rot90(frame, int(rng.integers(4)))
        if self.flip and rng.random() < 0.5:
            frame = frame[:, ::-1]
        if self.crop < 1:
            frame = self._cut(frame, rng)
        frame = prepare(np.ascontiguousarray(frame), size)
        if self.shift or self.scale:
            frame = self._moved(frame, rng)
        return self._toned(frame, rng)

    def _cut(self, frame: Frame, rng: np.random.Generator) -> Frame:
        edge, share = frame.shape[0], rng.uniform(self.crop, 1)
        shape = np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
        height, width = (min(edge, round(edge * float(np.sqrt(share * side)))) for side in (1 / shape, shape))
        top, left = (int(rng.integers(edge - side + 1)) for side in (height, width))
        return frame[top : top + height, left : left + width]

    def _moved(self, frame: Frame, rng: np.random.Generator) -> Frame:
        size = frame.shape[0]
        zoom = 1 + rng.uniform(-self.scale, self.scale)
        shift = rng.uniform(-self.shift, self.shift, 2) * size
        corner = (1 - zoom) * (size - 1) / 2 + shift  # zooms about the centre
        matrix = np.array([[zoom, 0, corner[0]], [0, zoom, corner[1]]], np.float32)
        return np.asarray(cv2.warpAffine(frame, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE), np.uint8)

    def _toned(self, frame: Frame, rng: np.random.Generator) -> Frame:
        factor = 1 + rng.uniform(-self.brightness, self.brightness)
        if self.tint:
            frame = _rounded(frame * (1 + rng.uniform(-self.tint, self.tint, 3)))
        if not self.contrast and not self.saturation:
            return _rounded(frame * factor)
        contrast, saturation = (1 + rng.uniform(-each, each) for each in (self.contrast, self.saturation))
        pixels = frame.astype(np.float32)
        grey = pixels @ LUMA
        # One mix of each pixel, its grey and the mean grey, for both.
        pixels = saturation * pixels + (1 - saturation) * grey[..., None]
        return _rounded(factor * (contrast * pixels + (1 - contrast) * grey.mean()))


def _number(frame: Frame) -> int:
    """Of 64 bits, by what is in the frame."""
    some = frame[::EVERY, ::EVERY].tobytes()
    return int.from_bytes(hashlib.blake2b(some, digest_size=8).digest(), "little")


def _rounded(pixels: NDArray[np.floating[Any]]) -> Frame:
    rounded: Frame = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return rounded


def augment_batch(
    frames: Frame, indices: NDArray[np.int64], augment: Augment, size: int, seed: int, view: int
) -> Frame:
    """uint8 (N, size, size, 3): the frames at `indices` of (M, H, H, 3), each changed by its own draw."""
    return np.stack([augment(frames[index], size, seed, view) for index in indices])
