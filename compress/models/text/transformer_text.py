"""The text transformer of CLIP, SigLIP and open_clip (Radford et al. 2021, arXiv 2103.00020); a checkpoint brings the
weights and the tokenizer (compress/checkpoints).

What is pooled is the first token with the number `end` ("end", CLIP), or the last of all, padding or not ("last",
SigLIP).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.models.transformer import Block, Layers, part_names
from compress.named import fill
from runtimes import RecipeError

LICENCE: dict[str, str] = {}
POOLS = ("end", "last")
# What a token that comes later gets on its attention logit: e^-100 is nothing, and int8 graphs can hold the number.
LATER = -100.0


@dataclass(frozen=True)
class Options(Layers):
    """`vocab`: rows of the table, `length`: tokens L that it was made for. `causal`: a token sees those before it only.
    `end`, `pad`: the numbers of these tokens. The rest: see Layers."""

    vocab: int = 49408
    length: int = 77
    width: int = 512
    layers: int = 12
    heads: int = 8
    hidden: int = 2048
    causal: bool = True
    pool: str = "end"
    end: int = 49407
    pad: int = 49407

    def __post_init__(self) -> None:
        self.check("transformer_text", 0, self.vocab, self.length)
        if self.pool not in POOLS:
            raise RecipeError(f"transformer_text.pool is one of {', '.join(POOLS)}, got {self.pool!r}")
        if self.pool == "last" and self.causal:
            raise RecipeError(
                "transformer_text: the last token is padding, which a causal tower gives no sense; pool the end"
            )
        if not (0 <= self.end < self.vocab and 0 <= self.pad < self.vocab):
            raise RecipeError(
                f"transformer_text: end and pad are rows of a table of {self.vocab}, got {self.end} and {self.pad}"
            )


class TransformerText(nn.Module):
    """int64 ids, mask (N, L) to tokens (N, L, width) and pooled (N, width), float32."""

    places: Tensor

    def __init__(self, asked: Options) -> None:
        super().__init__()
        self.asked = asked
        self.width = self.token_width = asked.width
        self.words = nn.Embedding(asked.vocab, asked.width)
        self.positions = nn.Parameter(torch.randn(asked.length, asked.width) * 0.01)
        self.blocks = nn.ModuleList(Block(asked, layer) for layer in range(asked.layers))
        self.norm = nn.LayerNorm(asked.width, asked.eps)
        # How many tokens there are from a place on: L, L - 1, ... 1.
        self.register_buffer("places", torch.arange(asked.length, 0, -1), persistent=False)

    def residual_blocks(self) -> tuple[str, ...]:
        """Names of the modules that may be left out: blocks, each of which adds to what it got."""
        return tuple(f"blocks.{at}" for at in range(len(self.blocks)))

    def parts(self) -> tuple[str, ...]:
        """See `part_names`."""
        return part_names(self)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (N, up to L) each to tokens (N, L, width) and pooled (N, width).

        Where the mask is 0 the id is `pad`, and attention sees it: a causal tower's end looks at what is before it
        only, the others were trained to see padding.
        """
        asked, count = self.asked, int(ids.shape[1])
        ids = torch.where(mask == 1, ids, asked.pad)
        if not asked.causal and count < asked.length:  # columns of padding were left out, and they are seen
            ids, count = F.pad(ids, (0, asked.length - count), value=asked.pad), asked.length
        tokens = self.words(ids) + self.positions[:count]
        later = torch.full((count, count), LATER, device=ids.device).triu(1) if asked.causal else None
        for block in self.blocks:
            tokens = block(tokens, later)
        tokens = self.norm(tokens)
        return tokens[:, : int(mask.shape[1])], tokens[:, -1] if asked.pool == "last" else self._at_end(tokens, ids)

    def _at_end(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """The tokens (N, T, width) at the first `end` of each row of ids (N, T), to (N, width); the first where there
        is none.

        In integers, which no engine rounds, and each place with a value of its own: engines break ties differently.
        """
        length, places = self.asked.length, self.places[-int(ids.shape[1]) :]
        worth = (ids == self.asked.end).to(torch.int64) * length + places
        chosen = (worth == worth.amax(1, keepdim=True)).to(tokens.dtype)
        return (tokens * chosen[:, :, None]).sum(1)


def build(options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """The tower, its weights drawn; `pretrained` changes nothing, a checkpoint brings them.

    Raises RecipeError for options that are not those of `Options`.
    """
    asked: Options = fill(Options, options, "transformer_text")
    return TransformerText(asked)


def tokenizer(options: Mapping[str, Any], max_length: int) -> Any:
    """Raises RecipeError: the tokenizer comes with the checkpoint."""
    raise RecipeError(
        "the text tower transformer_text has no tokenizer of its own; a checkpoint brings one: set teach.source"
    )


def words() -> list[str]:
    """None: the vocabulary is the checkpoint's."""
    return []
