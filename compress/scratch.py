"""A student that inherits nothing: its shape stays, its weights are drawn anew. Beside it, what was inherited shows."""

import torch
from torch import nn

from runtimes import RecipeError


def start_afresh(side: nn.Module, seed: int) -> None:
    """Draw all weights of `side` anew, in place, each layer by its own `reset_parameters`; normalisations forget their
    statistics. Torch's generator stays where it was.

    Raises RecipeError, naming the first layer, if a layer has weights and no such method.
    """
    layers = {name: layer for name, layer in side.named_modules() if list(layer.parameters(recurse=False))}
    fixed = [name for name, layer in layers.items() if not hasattr(layer, "reset_parameters")]
    if fixed:
        raise RecipeError(
            f"{fixed[0]} ({type(layers[fixed[0]]).__name__}) holds weights that it cannot draw anew; "
            "choose another image tower, or let it inherit"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers.values():
            layer.reset_parameters()
