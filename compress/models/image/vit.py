"""The vision transformer of CLIP, SigLIP and open_clip (Dosovitskiy et al. 2021, arXiv 2010.11929); a checkpoint brings
the weights (compress/checkpoints), without one they are drawn.

What is pooled is the class token, which is the first, or what a learnt query sees in all tokens ("attention": the MAP
head of SigLIP; Zhai et al. 2022, arXiv 2106.04560).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.models.transformer import Attention, Block, FeedForward, Layers, part_names
from compress.named import fill
from runtimes import RecipeError

# CLIP's; a checkpoint says what it wants itself.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
LICENCE: dict[str, str] = {}
POOLS = ("class", "attention")


@dataclass(frozen=True)
class Options(Layers):
    """`size`: edge of the frames, `patch`: of the patches, in pixels. `norm_first`: also normalise before the first
    block, as CLIP does. The rest: see Layers."""

    size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    pool: str = "class"
    norm_first: bool = True
    patch_bias: bool = False

    def __post_init__(self) -> None:
        self.check("vit", int(self.pool == "attention"), self.patch)
        if self.pool not in POOLS:
            raise RecipeError(f"vit.pool is one of {', '.join(POOLS)}, got {self.pool!r}")
        if self.pool == "attention" and not self.shape(self.layers)[0]:
            raise RecipeError("vit: what pools by attention has at least one head; the last of each_heads is 0")
        if self.size < self.patch:
            raise RecipeError(f"vit: a frame of {self.size} pixels has no patch of {self.patch}; choose a larger size")


class Pool(nn.Module):
    """What one learnt query sees in all tokens."""

    def __init__(self, asked: Options) -> None:
        super().__init__()
        heads, hidden = asked.shape(asked.layers)
        self.probe = nn.Parameter(torch.randn(1, 1, asked.width) * asked.width**-0.5)
        self.attend = Attention(asked, heads)
        self.norm = nn.LayerNorm(asked.width, asked.eps) if hidden else nn.Identity()
        self.think = FeedForward(asked, hidden) if hidden else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, width) to (N, width)."""
        seen = self.attend(self.probe, tokens, None)
        pooled: Tensor = (seen if self.think is None else seen + self.think(self.norm(seen)))[:, 0]
        return pooled


class Vit(nn.Module):
    """float32 (N, 3, S, S) to a token per patch, and the class token before them where there is one."""

    def __init__(self, asked: Options) -> None:
        super().__init__()
        self.asked = asked
        self.width = self.token_width = asked.width
        self.first = int(asked.pool == "class")  # tokens before those of the patches
        count = (asked.size // asked.patch) ** 2 + self.first
        self.patches = nn.Conv2d(3, asked.width, asked.patch, asked.patch, bias=asked.patch_bias)
        # The class token is a constant: it is in the position of its own.
        self.positions = nn.Parameter(torch.randn(count, asked.width) * asked.width**-0.5)
        self.norm_first = nn.LayerNorm(asked.width, asked.eps) if asked.norm_first else nn.Identity()
        self.blocks = nn.ModuleList(Block(asked, layer) for layer in range(asked.layers))
        self.norm = nn.LayerNorm(asked.width, asked.eps)
        self.pool = Pool(asked) if asked.pool == "attention" else None

    def residual_blocks(self) -> tuple[str, ...]:
        """Names of the modules that may be left out: blocks, each of which adds to what it got."""
        return tuple(f"blocks.{at}" for at in range(len(self.blocks)))

    def parts(self) -> tuple[str, ...]:
        """See `part_names`."""
        return part_names(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, 3, S, S), normalised, to tokens (N, T, width) and pooled features (N, width), float32.

        Raises ValueError for another size than that of the positions.
        """
        if images.shape[-2:] != (self.asked.size, self.asked.size):
            raise ValueError(f"made for {self.asked.size} pixels, got {tuple(images.shape[-2:])}")
        patches = self.patches(images)
        tokens = patches.reshape(*patches.shape[:2], -1).transpose(1, 2)
        # Zeros in front, for adding the class token to: a copy of it per image would need the batch's size.
        tokens = self.norm_first(F.pad(tokens, (0, 0, self.first, 0)) + self.positions)
        for block in self.blocks:
            tokens = block(tokens, None)
        # Normalised apart, so that a graph without tokens does not normalise them.
        pooled = self.norm(tokens[:, 0]) if self.pool is None else self.pool(self.norm(tokens))
        return self.norm(tokens), pooled


def build(options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """The tower, its weights drawn; `pretrained` changes nothing, a checkpoint brings them.

    Raises RecipeError for options that are not those of `Options`.
    """
    asked: Options = fill(Options, options, "vit")
    return Vit(asked)
