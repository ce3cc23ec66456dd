"""The image side of a student: the teacher's or another tower, cut to size on training photos."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.augment import augment_batch
from compress.blocks import leave_out_least
from compress.channels import prune_channels
from compress.encode import Spec
from compress.models.dual_encoder import Side, to_input
from compress.progress import bar
from compress.projection import fit_projection
from compress.store import Store

BATCH = 64


@dataclass(frozen=True)
class Photos:
    """Train photos as the store's view 0 shows them to a model of `size` pixels. `frames`: uint8 (N, H, H, 3)."""

    frames: NDArray[np.uint8]
    store: Store
    size: int
    normal: Spec

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """float32 (len(rows), 3, size, size)."""
        header = self.store.header
        return to_input(augment_batch(self.frames, rows, header.augment, self.size, header.seed, 0), *self.normal)


def meet_teacher(side: Side, photos: Photos, rows: NDArray[np.int64]) -> None:
    """Fit the projection of another tower to the teacher's vectors of the photos at `rows`."""
    starts = range(0, len(rows), BATCH)
    pooled: list[Tensor] = []
    side.eval()
    with torch.no_grad(), bar("prune: features", len(starts)) as tick:
        for at in starts:
            pooled.append(side.tower(photos.batch(rows[at : at + BATCH]))[1])
            tick("")
    fit_projection(side, torch.cat(pooled), torch.as_tensor(photos.store.train[0][rows].copy()))


def cut(side: Side, photos: Photos, most: int, blocks: int, chosen: NDArray[np.int64]) -> tuple[str, ...]:
    """Leave out `blocks` residual blocks of `side`, then channels until at most `most` parameters are left, in place;
    returns the blocks' names. Importance is measured on the photos `chosen`. Raises what blocks.py and channels.py do.
    """
    # Whole batches: a normalisation cannot measure one sample alone.
    starts = range(0, max(1, len(chosen) // BATCH) * BATCH, BATCH)
    batches = [photos.batch(np.sort(chosen[at : at + BATCH])) for at in starts]
    gone = leave_out_least(side, [(each,) for each in batches[:2]], blocks, "prune: image blocks")
    prune_channels(side, batches, most, "prune: channels")
    return gone
