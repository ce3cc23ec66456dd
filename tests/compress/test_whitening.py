"""Whitened texts: spread evenly, told apart, finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.whitening import whiten


def cone(rows: int, width: int) -> torch.Tensor:
    """Features that all point nearly one way, with variances from 1 down to 1e-4."""
    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    return 10 + drawn * torch.logspace(0, -4, width)


@pytest.mark.parametrize("dim", [8, 16, 24])
def test_directions_come_out_centred_and_alike(dim: int) -> None:
    projection = nn.Linear(16, dim)
    pooled = cone(500, 16)
    whiten(projection, pooled)
    out = projection(pooled)
    assert out.mean(0).abs().max() < 1e-3
    spread = out.var(0)
    assert spread.max() < 1.01
    assert spread[:4].min() > 0.5
    if dim > 8:
        assert spread[8:].max() < 0.02
    assert not out[:, 16:].any(), "what is wider than the features stays zero"


def test_texts_of_one_kind_are_told_apart() -> None:
    pooled, projection = cone(200, 16), nn.Linear(16, 8)
    near = F.normalize(pooled, dim=1) @ F.normalize(pooled, dim=1).T
    assert near.min() > 0.98
    whiten(projection, pooled)
    out = F.normalize(projection(pooled), dim=1)
    assert (out @ out.T).fill_diagonal_(0).abs().mean() < 0.5


def test_texts_that_are_all_the_same_do_no_harm() -> None:
    projection = nn.Linear(4, 4)
    whiten(projection, torch.ones(3, 4))
    assert torch.isfinite(projection.weight).all()
    assert projection(torch.ones(1, 4)).abs().max() < 1e-3
