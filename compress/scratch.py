"""A student that inherits nothing: its shape stays, its weights are drawn anew. Beside it, what was inherited shows."""

from typing import Any

import torch
from torch import nn

from runtimes import RecipeError


def start_afresh(side: nn.Module, seed: int) -> None:
    """Draw all weights of `side` anew, in place, each layer by its own `reset_parameters`; normalisations forget their
    statistics. Torch's generator stays where it was.

    Raises as `check_afresh`.
    """
    check_afresh(side)
    place = next(side.parameters()).device
    side.cpu()  # drawn there, what is fresh is the same on every device
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        for layer in _layers(side).values():
            layer.reset_parameters()
    side.to(place)


def check_afresh(side: nn.Module) -> None:
    """Raises RecipeError, naming the first layer, if a layer has weights and no `reset_parameters`."""
    for name, layer in _layers(side).items():
        if not hasattr(layer, "reset_parameters"):
            raise RecipeError(
                f"{name} ({type(layer).__name__}) holds weights that it cannot draw anew; "
                "choose another image tower, or let it inherit"
            )


def _layers(side: nn.Module) -> dict[str, Any]:
    """Those that hold weights themselves."""
    return {name: layer for name, layer in side.named_modules() if list(layer.parameters(recurse=False))}
