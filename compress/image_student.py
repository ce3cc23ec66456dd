"""The image side of a student: the teacher's or another tower, cut to size on training photos."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.blocks import leave_out_least
from compress.channels import prune_channels
from compress.draft import ImageSpec, ModelFiles
from compress.encode import Spec
from compress.models import image_tower
from compress.models.dual_encoder import Side, to_input
from compress.narrow import add_projection, drop_projection
from compress.progress import bar
from compress.projection import fit_projection
from compress.shrink import Trunk, shrink
from compress.steps.prune import BATCH
from compress.store import Store
from compress.views import Views


@dataclass(frozen=True)
class Photos:
    """Train photos in view 0, and what the teacher said of them. `normal`: the model's."""

    seen: Views
    store: Store
    normal: Spec

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """float32 (len(rows), 3, S, S)."""
        return to_input(self.seen(rows, 0), *self.normal)


def another(name: str, options: Mapping[str, Any], teacher: ModelFiles, seed: int) -> Side:
    """An image side with the tower of that name in the place of the teacher's, its projections fresh."""
    torch.manual_seed(seed)
    with torch.device("cpu"):  # drawn there, what is fresh is the same on every device
        tower = image_tower(name).build(options, pretrained=True)
        side = Side(tower, teacher.dim, teacher.fusion.width if teacher.fusion else 0)
    return side.to(torch.get_default_device())


def meet_teacher(side: Side, photos: Photos, rows: NDArray[np.int64]) -> None:
    """Fit the projection of another tower to the teacher's vectors of the photos at `rows`."""
    starts = range(0, len(rows), BATCH)
    pooled: list[Tensor] = []
    side.eval()
    with torch.no_grad(), bar("prune: features", len(starts)) as tick:
        for at in starts:
            pooled.append(side.tower(photos.batch(rows[at : at + BATCH]))[1])
            tick("")
    fit_projection(side, torch.cat(pooled), torch.as_tensor(photos.store.vectors(0, rows)))


def batches(photos: Photos, chosen: NDArray[np.int64]) -> list[Tensor]:
    """The photos `chosen` in whole batches: a normalisation cannot measure one sample alone."""
    starts = range(0, max(1, len(chosen) // BATCH) * BATCH, BATCH)
    return [photos.batch(np.sort(chosen[at : at + BATCH])) for at in starts]


def cut(side: Side, spec: ImageSpec, shown: Sequence[Tensor], share: float, blocks: int) -> tuple[Side, ImageSpec]:
    """The side without `blocks` of its residual blocks, and then with channels, or what else a transformer has, left
    out until at most `share` of its parameters are left; and the spec that says so. Importance is measured on the
    `batches` shown. Raises what blocks.py, channels.py and shrink.py do.
    """
    most = int(share * side.count())
    gone = leave_out_least(side, [(each,) for each in shown[:2]], blocks, "prune: image blocks")
    options = spec.options
    if not hasattr(side.tower, "parts"):
        prune_channels(side, shown, most, "prune: channels")
    elif share < 1:
        add_projection(side)
        trunk = Trunk(side, image_tower(spec.name), options, [(each,) for each in shown])
        trunk = shrink({"image": trunk}, most, "prune.image_params")["image"]
        side, options = trunk.side, trunk.options
        drop_projection(side)
    return side, dataclasses.replace(spec, options=options, without=(*spec.without, *gone))
