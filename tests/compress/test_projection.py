"""Ridge regression against what it is by definition."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compress.models.dual_encoder import Side
from compress.projection import RIDGES, fit_projection


class Tower(nn.Module):
    width, token_width = 6, 6


def drawn(rows: int, noise: float) -> tuple[Side, torch.Tensor, torch.Tensor]:
    """A side whose features tell the wanted vectors up to noise."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, 6)) * [3, 2, 1, 1, 0.5, 0.1] + 1
    wanted = features @ rng.normal(size=(6, 4)) + 0.5 + noise * rng.normal(size=(rows, 4))
    tensors = (torch.from_numpy(array.astype(np.float32)) for array in (features, wanted))
    return Side(Tower(), 4), *tensors


def test_what_is_linear_is_found() -> None:
    side, features, wanted = drawn(40, 0.0)
    assert fit_projection(side, features, wanted) == min(RIDGES)
    assert torch.allclose(side.projection(features), wanted, atol=2e-3)


def test_the_penalty_is_the_best_when_each_row_is_left_out() -> None:
    """Refitted without each row in turn, by the normal equations."""
    side, features, wanted = drawn(12, 3.0)
    chosen = fit_projection(side, features, wanted)
    x, y = features.double(), wanted.double()
    penalty = {ridge: ridge * torch.linalg.svdvals(x - x.mean(0))[0] ** 2 for ridge in RIDGES}

    def fit(rows: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x[rows] - x[rows].mean(0), y[rows] - y[rows].mean(0)
        weight = torch.linalg.solve(a.T @ a + penalty[ridge] * torch.eye(6), a.T @ b)
        return weight, y[rows].mean(0) - x[rows].mean(0) @ weight

    def left_out(ridge: float) -> float:
        errors = []
        for row in range(len(x)):
            weight, bias = fit(torch.tensor([at for at in range(len(x)) if at != row]), ridge)
            errors.append((x[row] @ weight + bias - y[row]).square().mean())
        return float(torch.stack(errors).mean())

    assert chosen == min(RIDGES, key=left_out)
    assert min(RIDGES) < chosen, "noise asks for a penalty"
    weight, bias = fit(torch.arange(len(x)), chosen)
    assert torch.allclose(side.projection.weight.double(), weight.T, atol=1e-4)
    assert torch.allclose(side.projection.bias.double(), bias, atol=1e-4)


def test_fewer_rows_than_features_and_features_without_variance_do_no_harm() -> None:
    side, features, wanted = drawn(3, 0.1)
    fit_projection(side, features, wanted)
    assert torch.isfinite(side.projection.weight).all()
    fit_projection(side, torch.ones(5, 6), torch.full((5, 4), 0.25))
    assert torch.allclose(side.projection(torch.zeros(1, 6)), torch.full((1, 4), 0.25))
