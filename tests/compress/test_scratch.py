"""Weights drawn anew: nothing of the old ones is left, and a seed decides them."""

import pytest
import torch
from torch import nn

from compress.models.dual_encoder import Side
from compress.models.image.timm_image import TimmImage
from compress.scratch import start_afresh
from runtimes import RecipeError


def side() -> Side:
    torch.manual_seed(5)
    return Side(TimmImage("test_efficientnet"), 8, 4)


def test_all_weights_are_new_and_the_shape_stays() -> None:
    inherited, one, other, again = side(), side(), side(), side()
    one.train()(torch.rand(4, 3, 32, 32))  # statistics to forget
    torch.manual_seed(9)
    wanted = torch.rand(3)
    torch.manual_seed(9)
    for made, seed in ((one, 1), (other, 2), (again, 1)):
        start_afresh(made, seed)
    assert torch.equal(torch.rand(3), wanted), "torch's generator stays where it was"
    drawn = [name for name, layer in one.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert "tower.body.conv_stem" in drawn
    for name in drawn:
        weights = [made.get_submodule(name).weight for made in (inherited, one, other)]
        assert weights[0].shape == weights[1].shape
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])
    state = one.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert all((tensor == 0).all() for name, tensor in state.items() if name.endswith("running_mean"))


def test_weights_that_cannot_be_drawn_are_refused() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(3))

    with pytest.raises(RecipeError, match=r"1 \(Scale\) holds weights that it cannot draw anew; choose another image"):
        start_afresh(nn.Sequential(nn.Linear(3, 3), Scale()), 0)
