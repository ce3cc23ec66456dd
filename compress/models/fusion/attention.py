"""Cross-attention: the tokens of the question look at the tokens of the image (as the decoder of Vaswani et al. 2017,
arXiv 1706.03762, without self-attention: the text tower has done that), and their mean is asked for the answer.

Pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745), which train without a long warm-up; ReLU, which every integer
kernel has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.named import fill
from runtimes import RecipeError


@dataclass(frozen=True)
class Options:
    """`layers`: blocks of attention and feed-forward; `heads`: of attention; `wide`: width of feed-forward layers as
    a multiple of the tokens'.
    """

    layers: int = 2
    heads: int = 4
    wide: int = 2

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.wide) < 1:
            raise RecipeError(f"attention: layers, heads and wide must be at least 1, got {self}")


class Block(nn.Module):
    """One look at the image, and what follows from it for each token by itself."""

    def __init__(self, width: int, heads: int, wide: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.before_look, self.before_think = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.think = nn.Sequential(nn.Linear(width, wide * width), nn.ReLU(), nn.Linear(wide * width, width))

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """text (N, L, width), image (N, T, width) to (N, L, width)."""
        query, key, value = self._split(self.query(self.before_look(text))), self.key(image), self.value(image)
        share = (query @ self._split(key).transpose(2, 3) * self.scale).softmax(dim=-1)
        seen = (share @ self._split(value)).transpose(1, 2).reshape(*text.shape[:2], -1)
        text = text + self.out(seen)
        thought: Tensor = text + self.think(self.before_think(text))
        return thought

    def _split(self, tokens: Tensor) -> Tensor:
        """(N, T, width) to (N, heads, T, width / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class AttentionFusion(nn.Module):
    """See above; the image's tokens are normalised once for all blocks."""

    def __init__(self, asked: Options, width: int, answers: int) -> None:
        super().__init__()
        self.image_norm, self.text_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, asked.heads, asked.wide) for _ in range(asked.layers))
        self.last_norm = nn.LayerNorm(width)
        self.hidden, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, answers)

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """float32 image (N, T, width) and text (N, L, width), int64 mask (N, L), to logits float32 (N, answers)."""
        weight = mask.to(torch.float32)[:, :, None]
        image, text = self.image_norm(image), self.text_norm(text)
        for block in self.blocks:
            text = block(text, image)
        pooled = (text * weight).sum(1) / weight.sum(1)
        logits: Tensor = self.head(F.relu(self.hidden(self.last_norm(pooled))))
        return logits


def build(options: Mapping[str, Any], width: int, answers: int) -> nn.Module:
    """The fusion, with fresh weights from torch's generator.

    Raises RecipeError for options that are not those of `Options`, or a width that the heads do not divide.
    """
    asked: Options = fill(Options, options, "attention")
    if width % asked.heads:
        raise RecipeError(f"attention: {asked.heads} heads do not divide a width of {width}; choose others")
    return AttentionFusion(asked, width, answers)
