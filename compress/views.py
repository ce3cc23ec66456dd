"""Train images as a model sees them, in seeded views: the same for a teacher and its students."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.augment import Augment, augment_batch
from compress.draft import ImageSpec
from compress.prepared import prepared

Frames = NDArray[np.uint8]
How = tuple[int, str, str]  # edge in pixels, resize and crop
OURS = ("area", "none")  # resize and crop of teachers that are trained here


@dataclass(frozen=True)
class Views:
    """N images. `plain`: uint8 (N, H, H, 3), what view 0 is made of; `frames`: (N, E, E, 3), what the others are.

    `size`, `varied`: edges in pixels of view 0 and of the others. `seed`: see Augment.
    """

    plain: Frames
    frames: Frames
    augment: Augment
    size: int
    varied: int
    seed: int

    def __call__(self, rows: NDArray[np.int64], view: int) -> Frames:
        """uint8 (len(rows), S, S, 3): the images at `rows` in that view."""
        frames, size = (self.frames, self.varied) if view else (self.plain, self.size)
        return augment_batch(frames, rows, self.augment, size, self.seed, view)


def views(
    images: Sequence[Path], specs: tuple[ImageSpec, ImageSpec], how: tuple[Augment, int, int], out: Path, title: str
) -> Views:
    """The views of `images` in which a teacher described them, for a model that learns from that; `specs`: the
    teacher's and the model's, which may be the teacher itself. `how`: augment, `varied` (0: the model's size) and seed.

    All views but the first are made of the teacher's own frames, whatever the model's resize: else it would learn what
    was said of other pixels. View 0 is what the device will see, to the last bit but for a teacher of ours whose
    `augment` has a larger `source`. Raises FeedError for an image that cannot be read. `out`, `title`: see `prepared`.
    """
    augment, varied, seed = how
    cut, whole = frames_of(specs, augment)
    frames = prepared(images, cut[0], out, title, *cut[1:])
    plain = frames if whole == cut else prepared(images, whole[0], out, title, *whole[1:])
    return Views(plain, frames, augment, specs[1].size, varied or specs[1].size, seed)


def frames_of(specs: tuple[ImageSpec, ImageSpec], augment: Augment) -> tuple[How, How]:
    """What views are cut of, and what the plain one is made of; `specs`: see `views`."""
    teacher, model = specs
    cut = (augment.edge(teacher.size), teacher.resize, teacher.crop)
    if augment.source > 1 and cut[1:] == OURS:
        return cut, cut
    return cut, (model.size, model.resize, model.crop)


def view_seed(seed: int) -> int:
    """The seed of the stored views. Not the run's own: with the same augmentation the teacher's lesson had those very
    crops, and what it says of crops it learnt by heart is surer than what a student needs to hear."""
    return int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])
