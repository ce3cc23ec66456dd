"""Rebuilding a pruned network: its file says which blocks were left out, its weights how wide each layer still is."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from runtimes import RecipeError

RESIZED = (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.Linear)  # what can be given another width


class Skip(nn.Module):
    """Stands where a residual block was: what went in comes out."""

    def forward(self, features: Tensor, *_: object, **__: object) -> Tensor:
        """`features` as they are; whatever else the block would have got is not used."""
        return features


def leave_out(tower: nn.Module, names: Iterable[str]) -> None:
    """Put a `Skip` in the place of each named module, so that all others keep their names. Raises AttributeError."""
    for name in names:
        tower.get_submodule(name)
        parent, _, last = name.rpartition(".")
        setattr(tower.get_submodule(parent), last, Skip())


def fit_widths(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give every layer whose stored weight has another shape that shape, with values yet to be loaded.

    Convolutions are dense or depthwise (as many groups as channels); normalisations and linear layers as they come.
    """
    for name, layer in module.named_modules():
        weight = state.get(f"{name}.weight")
        own = getattr(layer, "weight", None)
        if weight is None or not isinstance(own, Tensor) or own.shape == weight.shape:
            continue
        _resize(layer, weight)
        for key, old in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            new = torch.empty_like(state[f"{name}.{key}"])
            setattr(layer, key, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)


def check_channels(name: str, tower: nn.Module) -> None:
    """Raises RecipeError for a tower whose channels cannot be cut: with attention, whose heads no weight counts, or
    with weights outside of the layers that `fit_widths` knows."""
    for place, module in tower.named_modules():
        owns = any(True for _ in module.parameters(recurse=False)) and not isinstance(module, RESIZED)
        if owns or hasattr(module, "num_heads"):
            raise RecipeError(
                f"prune.image_params cuts the channels of convolutional networks, and the image tower {name} has a "
                f"{type(module).__name__} ({place}), which cannot be cut; leave it at 1, or choose another tower"
            )


def _resize(layer: nn.Module, weight: Tensor) -> None:
    """The sizes that a layer keeps beside its weight. Raises TypeError for a kind of layer that has others."""
    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups > 1
        if depthwise and weight.shape[1] != 1:
            raise TypeError(f"a convolution of {layer.groups} groups, not depthwise, cannot be given another width")
        layer.out_channels = weight.shape[0]
        layer.groups = weight.shape[0] if depthwise else 1
        layer.in_channels = weight.shape[0] if depthwise else weight.shape[1]
    elif isinstance(layer, nn.BatchNorm2d):
        layer.num_features = weight.shape[0]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    else:
        raise TypeError(f"a {type(layer).__name__} cannot be given another width")
