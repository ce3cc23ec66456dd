"""A fresh tower's projection, fitted in closed form: training then starts where the teacher looks, and does not spoil
pretrained features on the way there (Kumar et al. 2022, arXiv 2202.10054)."""

import torch
from torch import Tensor

from compress.models.dual_encoder import Side

FIT = 8192  # samples that are enough: several times the features of any tower here
# Ridge penalties that are tried, as shares of the largest squared singular value.
RIDGES = tuple(10.0**exponent for exponent in range(-6, 1))


@torch.no_grad()
def fit_projection(side: Side, pooled: Tensor, wanted: Tensor) -> float:
    """Set the projection of `side` so that the tower's features `pooled` (N, width) come nearest to the teacher's unit
    vectors `wanted` (N, dim), both float32; returns the penalty, one of RIDGES.

    Ridge regression; of the penalties the one with the least leave-one-out error (Allen 1974, PRESS) is taken.
    """
    features, targets = pooled.double(), wanted.double()
    middle, aim = features.mean(0), targets.mean(0)
    u, s, v = torch.linalg.svd(features - middle, full_matrices=False)
    aligned = u.T @ (targets - aim)
    largest = s.square().max().clamp(min=torch.finfo(s.dtype).tiny)

    def kept(ridge: float) -> Tensor:
        """How much of each direction stays under a penalty."""
        share: Tensor = s.square() / (s.square() + ridge * largest)
        return share

    def left_out(ridge: float) -> float:
        """Mean squared error of each row by the fit to all others."""
        leverage = 1 / len(features) + u.square() @ kept(ridge)
        missed = targets - aim - u @ (kept(ridge)[:, None] * aligned)
        return float((missed / (1 - leverage).clamp(min=1e-6)[:, None]).square().mean())

    best = min(RIDGES, key=left_out)
    weight = (v.T @ ((kept(best) / s.clamp(min=torch.finfo(s.dtype).tiny))[:, None] * aligned)).T
    side.projection.weight.copy_(weight)
    side.projection.bias.copy_(aim - weight @ middle)
    return best
