"""The exponential moving average of a model's weights, which often generalizes better than the last weights."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """`tensors`: name -> average of what was seen under that name; whole numbers (counters) are the last ones.

    `decay`: what stays of the average at each step (Polyak and Juditsky 1992); at the start it is (1 + t) / (10 + t),
    so that the first weights are soon forgotten.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self._decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from an average of the same names, on whatever device it is."""
        self.tensors = {name: tensor.to(self.tensors[name].device) for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the tensors as they are after step `step` (from 0)."""
        keep = min(self._decay, (1 + step) / (10 + step))
        for name, mean in self.tensors.items():
            if mean.is_floating_point():
                mean.lerp_(tensors[name], 1 - keep)
            else:
                mean.copy_(tensors[name])
