"""A transformer's side with fewer units: what stays keeps its weights, to the bit.

Units come in groups: the residual stream ("width"), and each part of the tower, whose units are heads of attention
("blocks.3.attend") or hidden units of feed-forward ("blocks.3.think"). A part without units is left out altogether, and
so is its normalisation. How many units each group has stands in the tower's options, so that `build` makes the shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.dual_encoder import Side
from compress.models.transformer import Attention, FeedForward

WIDTH = "width"
ATTEND = ".attend"
# What the axes of a layer's weight count, the part that the layer is in being PART; of all others the first is WIDTH.
PART = "part"
AXES: Mapping[str, tuple[str | None, ...]] = {
    **dict.fromkeys(("query", "key", "value", "wide"), (PART, WIDTH)),
    **dict.fromkeys(("out", "narrow"), (WIDTH, PART)),
    **dict.fromkeys(("words", "projection", "tokens"), (None, WIDTH)),
}
PARAMETERS: Mapping[str, tuple[str | None, ...]] = {
    "tower.positions": (None, WIDTH),
    "tower.pool.probe": (None, None, WIDTH),
}


@dataclass(frozen=True)
class Weight:
    """One weight of a side, of `numel` numbers. `axes`: the group whose units each axis counts, None for another;
    `part`: the group without whose units there is no such weight, or no group where there always is."""

    numel: int
    axes: tuple[str | None, ...]
    part: str

    def params(self, before: Mapping[str, int], after: Mapping[str, int]) -> int:
        """How many numbers it has when groups of `before` have as many units as `after` says."""
        if not after.get(self.part, 1):
            return 0
        number = self.numel
        for group in self.axes:
            if group is not None:
                number = number // before[group] * after[group]
        return number


@dataclass(frozen=True)
class Inventory:
    """What a side is made of. `sizes`: units per group, as they are."""

    weights: tuple[Weight, ...]
    sizes: Mapping[str, int]

    def params(self, sizes: Mapping[str, int]) -> int:
        """How many parameters the side would have with these units per group."""
        return sum(weight.params(self.sizes, sizes) for weight in self.weights)


def inventory(side: Side) -> Inventory:
    """The weights and units of a side whose tower is a transformer of ours."""
    named = [(name, tensor.numel(), tensor.ndim) for name, tensor in side.named_parameters()]
    weights = (Weight(numel, _axes(name)[:ndim], _part(name)) for name, numel, ndim in named)
    return Inventory(tuple(weights), unit_counts(side))


def unit_counts(side: Side) -> dict[str, int]:
    """How many units each group of a side has."""
    found = {WIDTH: int(side.tower.width)}  # type: ignore[arg-type]
    for name, part in parts_of(side).items():
        found[name] = part.heads if isinstance(part, Attention) else part.wide.out_features
    return found


def parts_of(side: Side) -> dict[str, Attention | FeedForward]:
    """The parts of a side's tower by name, in order."""
    names: tuple[str, ...] = side.tower.parts()  # type: ignore[operator]
    return {name: side.tower.get_submodule(name) for name in names}  # type: ignore[misc]


def narrowed(side: Side, module: Any, options: Mapping[str, Any], kept: Mapping[str, Tensor]) -> tuple[Side, Any]:
    """A side with only the units `kept`, int64 positions per group (a group that is not named keeps all), and the
    options of its tower; `module`, `options`: the file of compress/models that built the tower, and with what."""
    sizes = {**unit_counts(side), **{group: len(units) for group, units in kept.items()}}
    made, options = shaped(side, module, options, sizes)
    state = {
        name: _chosen(tensor, _axes(name), kept, options["head"])
        for name, tensor in side.state_dict().items()
        if sizes.get(_part(name), 1)
    }
    made.load_state_dict(state, strict=True)
    return made.to(next(side.parameters()).device), options


def shaped(
    side: Side, module: Any, options: Mapping[str, Any], sizes: Mapping[str, int]
) -> tuple[Side, dict[str, Any]]:
    """A side like this one with that many units in each group, on the CPU, its weights drawn, and the options of its
    tower; `module`, `options`: see `narrowed`."""
    asked: Any = side.tower.asked
    options = {**options, **_shape(sizes, asked.layers), "head": asked.head or asked.width // asked.heads}
    projected = isinstance(side.projection, nn.Linear)
    dim = side.projection.out_features if projected else 0
    with torch.device("cpu"):
        tower = module.build(options, pretrained=False)
        made = Side(tower, dim, side.tokens.out_features if side.tokens is not None else 0, projected)
    return made.eval(), options


@torch.no_grad()
def add_projection(side: Side) -> None:
    """Give the side a projection that changes nothing where it has none: its joint space is the tower's stream, which
    shall keep its width while the tower's goes."""
    if isinstance(side.projection, nn.Identity):
        width = int(side.tower.width)  # type: ignore[arg-type]
        side.projection = nn.Linear(width, width)
        nn.init.eye_(side.projection.weight)
        nn.init.zeros_(side.projection.bias)


def drop_projection(side: Side) -> None:
    """Take a projection that changes nothing from the side."""
    layer: Any = side.projection
    square = isinstance(layer, nn.Linear) and layer.in_features == layer.out_features and not layer.bias.any()
    if square and torch.equal(layer.weight, torch.eye(layer.in_features, device=layer.weight.device)):
        side.projection = nn.Identity()


def _shape(sizes: Mapping[str, int], layers: int) -> dict[str, Any]:
    """As options say it, see compress/models/transformer.py."""
    places = [f"blocks.{at}" for at in range(layers)] + ["pool"] * ("pool.attend" in sizes)
    return {
        "width": sizes[WIDTH],
        "each_heads": [sizes.get(f"{place}{ATTEND}", 0) for place in places],
        "each_hidden": [sizes.get(f"{place}.think", 0) for place in places],
    }


def _chosen(tensor: Tensor, axes: tuple[str | None, ...], kept: Mapping[str, Tensor], head: int) -> Tensor:
    for axis, group in enumerate(axes[: tensor.ndim]):
        units = kept.get(group) if group is not None else None
        if units is not None and group is not None:
            units = units.to(tensor.device)
            if group.endswith(ATTEND):  # each head is `head` rows
                units = (units[:, None] * head + torch.arange(head, device=tensor.device)).flatten()
            tensor = tensor.index_select(axis, units)
    return tensor


def _axes(name: str) -> tuple[str | None, ...]:
    """What the axes of a weight of a side count, by its name; a weight may have fewer axes than that."""
    if name in PARAMETERS:
        return PARAMETERS[name]
    part, _, layer = name.removeprefix("tower.").rpartition(".")[0].rpartition(".")
    return tuple(part if axis == PART else axis for axis in AXES.get(layer, (WIDTH,)))


def _part(name: str) -> str:
    """The part that a weight belongs to: that of its layer, or that which a normalisation stands before."""
    layer = name.removeprefix("tower.").rpartition(".")[0]
    if layer == "pool.norm":
        return "pool.think"
    return layer.removesuffix("_norm") if layer.endswith("_norm") else layer.rpartition(".")[0]
