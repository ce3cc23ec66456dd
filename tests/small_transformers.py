"""Small sides whose towers are transformers of ours, with weights large enough that every unit says something."""

from __future__ import annotations

import torch

from compress.models import image_tower, text_tower
from compress.models.dual_encoder import Side
from compress.shrink import Trunk
from tests.checkpoints import spread

IMAGE = {"size": 32, "patch": 8, "width": 32, "layers": 3, "heads": 4, "hidden": 48}
TEXT = {"vocab": 50, "length": 12, "width": 32, "layers": 2, "heads": 4, "hidden": 48, "end": 49, "pad": 0}


def image_side(pool: str = "class", projected: bool = True, width: int = 0) -> Side:
    torch.manual_seed(0)
    side = Side(image_tower("vit").build({**IMAGE, "pool": pool}, False), 24 if projected else 32, width, projected)
    spread(side)
    return side.eval()


def text_side() -> Side:
    torch.manual_seed(1)
    side = Side(text_tower("transformer_text").build(TEXT, False), 24)
    spread(side)
    return side.eval()


def frames(rows: int = 16) -> torch.Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def words(rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 49, (rows, 12), generator=torch.Generator().manual_seed(3))
    ids[torch.arange(rows), 4 + torch.arange(rows) % 8] = 49
    return ids, (ids != 0).to(torch.int64)


def image_trunk(pool: str = "class", projected: bool = True, width: int = 0) -> Trunk:
    feeds = [(frames(32)[at : at + 16],) for at in (0, 16)]
    return Trunk(image_side(pool, projected, width), image_tower("vit"), {**IMAGE, "pool": pool}, feeds)


def text_trunk() -> Trunk:
    return Trunk(text_side(), text_tower("transformer_text"), TEXT, [words(32)])
