"""The transformer of CLIP-like towers: pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745) of attention and a
feed-forward part, with weights that a checkpoint brings.

Written here and not taken from the libraries that the checkpoints come from: one network serves all of them, its graphs
hold no shape arithmetic, and each layer is as wide as the options say, which a pruned one needs. That it computes what
theirs does is measured for each checkpoint (compress/parity.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.named import did_you_mean
from runtimes import RecipeError


def _quick_gelu(features: Tensor) -> Tensor:
    return features * torch.sigmoid(1.702 * features)


def _gelu_tanh(features: Tensor) -> Tensor:
    return F.gelu(features, approximate="tanh")


# As the configurations of checkpoints call them (Hendrycks and Gimpel 2016, arXiv 1606.08415).
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
}


@dataclass(frozen=True)
class Layers:
    """Options of every transformer here. `width`: of the residual stream. `hidden`: width of the feed-forward parts.
    `eps`: of the normalisations.

    What pruning leaves: `head`, the width of one head (0: `width` shared out among `heads`); `each_heads` and
    `each_hidden`, in the place of `heads` and `hidden`, one number per layer, and one more for what pools by
    attention. 0: that layer has no attention, or no feed-forward part.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    activation: str = "gelu"
    eps: float = 1e-5
    head: int = 0
    each_heads: tuple[int, ...] = ()
    each_hidden: tuple[int, ...] = ()

    def check(self, where: str, pools: int, *counts: int) -> None:
        """Raises RecipeError, naming the tower `where`, for an unknown activation, heads that do not divide the width,
        numbers for other than `layers` + `pools` layers, or a count, one of the other `counts` too, below 1."""
        if self.activation not in ACTIVATIONS:
            hint = did_you_mean(self.activation, ACTIVATIONS)
            known = ", ".join(ACTIVATIONS)
            raise RecipeError(f"{where} has no activation {self.activation!r}{hint}; activations: {known}")
        sizes = (self.width, self.heads, self.layers, self.hidden, *counts)
        if min(sizes) < 1:
            raise RecipeError(f"{where}: every size and count must be at least 1, got {sizes}")
        if not self.head and self.width % self.heads:
            raise RecipeError(f"{where}: {self.heads} heads do not divide a width of {self.width}; choose others")
        for name, each in (("each_heads", self.each_heads), ("each_hidden", self.each_hidden)):
            if each and (len(each) != self.layers + pools or min(each) < 0):
                raise RecipeError(
                    f"{where}.{name} is {self.layers + pools} numbers from 0 on, one per layer, got {list(each)}"
                )

    def shape(self, layer: int) -> tuple[int, int]:
        """Heads and hidden width of a layer, from 0; what pools comes after the last."""
        heads = self.each_heads[layer] if self.each_heads else self.heads
        return heads, self.each_hidden[layer] if self.each_hidden else self.hidden


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762); `head`: width of one of its heads."""

    def __init__(self, asked: Layers, heads: int) -> None:
        super().__init__()
        self.heads, self.head = heads, asked.head or asked.width // asked.heads
        inner = self.heads * self.head
        self.query, self.key, self.value = (nn.Linear(asked.width, inner) for _ in range(3))
        self.out = nn.Linear(inner, asked.width)

    def forward(self, asking: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """`asking` (N or 1, Q, width) looks at `tokens` (N, T, width); `mask` (Q, T) is added to the logits. Returns
        (N, Q, width)."""
        query = self._split(self.query(asking)) * self.head**-0.5
        logits = query @ self._split(self.key(tokens)).transpose(2, 3)
        share = (logits if mask is None else logits + mask).softmax(dim=-1)
        seen = (share @ self._split(self.value(tokens))).transpose(1, 2)
        out: Tensor = self.out(seen.reshape(seen.shape[0], int(seen.shape[1]), -1))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        """(N, T, heads * head) to (N, heads, T, head)."""
        return tokens.reshape(tokens.shape[0], int(tokens.shape[1]), self.heads, self.head).transpose(1, 2)


def from_multihead(ours: str, theirs: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of torch's MultiheadAttention, named `theirs` in `state`, under the names of an Attention `ours`: it
    keeps query, key and value in one matrix."""
    found = {f"{ours}.out.{kind}": state[f"{theirs}.out_proj.{kind}"] for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        three = state[f"{theirs}.in_proj_{kind}"].chunk(3)
        found |= {f"{ours}.{name}.{kind}": part for name, part in zip(("query", "key", "value"), three, strict=True)}
    return found


class FeedForward(nn.Module):
    """Wide, the activation, narrow."""

    def __init__(self, asked: Layers, hidden: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[asked.activation]
        self.wide, self.narrow = nn.Linear(asked.width, hidden), nn.Linear(hidden, asked.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, width) to the same."""
        narrowed: Tensor = self.narrow(self.activation(self.wide(tokens)))
        return narrowed


class Block(nn.Module):
    """Attention, then the feed-forward part, each added to what it got; one of `layer` of the options, from 0."""

    def __init__(self, asked: Layers, layer: int) -> None:
        super().__init__()
        heads, hidden = asked.shape(layer)
        self.attend_norm = nn.LayerNorm(asked.width, asked.eps) if heads else nn.Identity()
        self.think_norm = nn.LayerNorm(asked.width, asked.eps) if hidden else nn.Identity()
        self.attend = Attention(asked, heads) if heads else None
        self.think = FeedForward(asked, hidden) if hidden else None

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(N, T, width) to the same; `mask` (T, T) is added to the logits of attention."""
        if self.attend is not None:
            normed = self.attend_norm(tokens)
            tokens = tokens + self.attend(normed, normed, mask)
        return tokens if self.think is None else tokens + self.think(self.think_norm(tokens))


def part_names(tower: nn.Module) -> tuple[str, ...]:
    """Names of the attention and feed-forward parts of a tower, in order: what a narrower one may have fewer heads or
    hidden units in, or none of."""
    return tuple(name for name, part in tower.named_modules() if isinstance(part, Attention | FeedForward))
