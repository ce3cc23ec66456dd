"""Pruning: what matters least goes, what stays keeps its weights, and its file opens again."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.blocks import leave_out_least
from compress.channels import gate_scores, prune_channels, recalibrate
from compress.models.dual_encoder import Side, count, load_model, write_weights
from compress.models.image import efficientnet_lite0
from compress.models.pruned import Skip, fit_widths, leave_out
from runtimes import RecipeError
from tests.small_models import SHAPE, save_small, small_model


class Weighted(nn.Module):
    """A residual block that adds as much as it is told."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner, self.strength = nn.Conv2d(8, 8, 3, padding=1), strength

    def forward(self, features: Tensor) -> Tensor:
        return features + self.strength * self.inner(features)


class Blocks(nn.Module):
    """A tower of residual blocks whose order of importance is known."""

    def __init__(self, *strengths: float) -> None:
        super().__init__()
        self.width = self.token_width = 8
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*map(Weighted, strengths))

    def residual_blocks(self) -> tuple[str, ...]:
        return tuple(f"blocks.{at}" for at in range(len(self.blocks)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.blocks(self.stem(images))
        return features.flatten(2).transpose(1, 2), features.mean((2, 3))


class Normalised(nn.Module):
    """A tower of a dense, a depthwise and a pointwise convolution, each with its BatchNorm."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.width = self.token_width = channels

        def layer(before: int, groups: int, edge: int) -> nn.Sequential:
            convolution = nn.Conv2d(before, channels, edge, 1, edge // 2, groups=groups, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())

        self.dense, self.deep, self.point = layer(3, 1, 3), layer(channels, channels, 3), layer(channels, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.point(self.deep(self.dense(images)))
        return features.flatten(2).transpose(1, 2), features.mean((2, 3))


def batches(number: int = 3, rows: int = 16, size: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 3, size, size, generator=generator) for _ in range(number)]


def randomised(side: Side) -> Side:
    """With gains and shifts as training leaves them, and the statistics of `batches`."""
    for module in side.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    recalibrate(side, batches())
    return side


@pytest.fixture
def normalised() -> Side:
    torch.manual_seed(0)
    return randomised(Side(Normalised(), 8))


def norms(side: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in side.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_blocks_that_matter_least_are_left_out() -> None:
    torch.manual_seed(0)
    side = Side(Blocks(1.0, 1e-3, 0.1, 0.5), 4, width=8)
    feeds = [(batch,) for batch in batches()]
    with torch.no_grad():
        assert leave_out_least(side, feeds, 0, "prune") == ()
        before = side(feeds[0][0])[0]
        assert leave_out_least(side, feeds, 2, "prune") == ("blocks.1", "blocks.2")
        after = side(feeds[0][0])[0]
    kinds = [type(side.tower.get_submodule(f"blocks.{at}")) for at in range(4)]
    assert kinds == [Weighted, Skip, Skip, Weighted]
    assert after.shape == before.shape
    assert not torch.equal(after, before)
    assert torch.cosine_similarity(after, before).mean() > 0.9


@pytest.mark.parametrize(("tower", "has"), [(Blocks(1.0, 1.0), 2), (Normalised(), 0)])
def test_more_blocks_than_there_are_cannot_go(tower: nn.Module, has: int) -> None:
    says = f"prune: image blocks: 3 blocks were to be left out, and the tower has {has} that can be; ask for fewer"
    with pytest.raises(RecipeError, match=says):
        leave_out_least(Side(tower, 4), [(batches()[0],)], 3, "prune: image blocks")


def test_a_name_that_no_block_has_is_an_error() -> None:
    tower = Blocks(1.0)
    with pytest.raises(AttributeError, match="has no attribute `7`"):
        leave_out(tower, ["blocks.7"])
    leave_out(tower, ["blocks.0"])
    assert isinstance(tower.blocks[0], Skip)
    assert tower.blocks[0](features := torch.randn(2, 3), None, mask=None) is features


def test_layers_take_the_widths_of_stored_weights() -> None:
    def layers(wide: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, wide, 3),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, wide, 3, groups=wide, bias=False),
            nn.Flatten(),
            nn.LayerNorm(wide),
            nn.Linear(wide, wide // 2),
        )

    narrow, whole = layers(6).eval(), layers(16).eval()
    fit_widths(whole, narrow.state_dict())
    whole.load_state_dict(narrow.state_dict(), strict=True)
    frames = torch.randn(2, 3, 5, 5)
    assert torch.equal(whole(frames), narrow(frames))
    assert (whole[0].out_channels, whole[2].groups, whole[4].normalized_shape, whole[5].out_features) == (6, 6, (6,), 3)
    assert all(parameter.requires_grad for parameter in whole.parameters())
    # Dense where both sizes are cut, and untouched where nothing is.
    dense, kept = nn.Sequential(nn.Conv2d(8, 16, 1)), nn.Sequential(nn.Linear(4, 4))
    fit_widths(dense, {"0.weight": torch.zeros(6, 5, 1, 1), "0.bias": torch.zeros(6)})
    assert (dense[0].in_channels, dense[0].out_channels, dense[0].groups) == (5, 6, 1)
    weight = kept[0].weight
    fit_widths(kept, {"0.weight": torch.zeros(4, 4)})
    assert kept[0].weight is weight


def test_a_layer_of_another_kind_cannot_be_fitted() -> None:
    with pytest.raises(TypeError, match="a Embedding cannot be given another width"):
        fit_widths(nn.Sequential(nn.Embedding(10, 4)), {"0.weight": torch.zeros(5, 4)})


@pytest.mark.parametrize(
    ("net", "options"), [("efficientnet_lite0", {}), ("timm_image", {"model": "lcnet_050"})], ids=["lite0", "lcnet"]
)
def test_a_pruned_model_opens_again_as_it_was(net: str, options: dict[str, str], tmp_path: Path) -> None:
    """Residual blocks, SAME padding (Lite0); squeeze-and-excite and a head without normalisation (LCNet)."""
    shape = dataclasses.replace(SHAPE, image=net, image_options=options)
    model = small_model(shape)
    files = save_small(model, tmp_path / "whole", shape)
    frames = batches(2, 8, shape.size)
    blocks = 2 if net == "efficientnet_lite0" else 0
    gone = leave_out_least(model.image, [(frames[0],)], blocks, "blocks")
    most = count(model.image) * 2 // 3
    prune_channels(model.image, frames, most, "channels")
    assert 0.8 * most < count(model.image) <= most
    image = dataclasses.replace(files.image, without=gone, weights=tmp_path / "pruned" / "image.safetensors")
    files = dataclasses.replace(files, image=image)
    write_weights(model, files)
    again = load_model(files)
    assert count(again.image) == count(model.image)
    with torch.no_grad():
        for one, two in zip(again.image(frames[0]), model.image(frames[0]), strict=True):
            assert one.shape == two.shape
            assert torch.equal(one, two)
    convolutions = [module for module in again.image.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.out_channels % 8 == 0 for module in convolutions)
    assert again.image.tokens is not None
    assert again.image(frames[0])[1].shape == (8, 1, shape.width)


def test_every_residual_block_of_lite0_may_go(tmp_path: Path) -> None:
    tower = efficientnet_lite0.build({}, pretrained=False)
    names = tower.residual_blocks()  # type: ignore[operator]
    assert names[0] == "body.blocks.1.1"
    assert len(names) == 9
    leave_out(tower, names)
    tokens, pooled = tower.eval()(torch.zeros(2, 3, 64, 64))
    assert (tokens.shape, pooled.shape) == ((2, 4, 1280), (2, 1280))


def test_dead_channels_go_first_and_nothing_changes(normalised: Side) -> None:
    """Half of each layer's channels are always zero: without them the outputs are what they were."""
    tower = normalised.tower
    dead = {1: torch.arange(0, 32, 2), 2: torch.arange(0, 16)}
    with torch.no_grad():
        # What a depthwise convolution gets and gives are the same channels.
        for name, channels in (("dense", dead[1]), ("deep", dead[1]), ("point", dead[2])):
            norm = tower.get_submodule(name)[1]  # type: ignore[index]
            norm.weight[channels] = 0
            norm.bias[channels] = 0
        recalibrate(normalised, batches())
        frames = torch.cat(batches())
        before = normalised(frames)
    alive = count(Side(Normalised(16), 8))
    prune_channels(normalised, batches(), alive, "prune")
    assert count(normalised) == alive
    assert [norm.num_features for norm in norms(normalised)] == [16, 16, 16]
    with torch.no_grad():
        assert torch.allclose(normalised(frames), before, atol=1e-5)


def test_what_stays_is_a_multiple_of_eight() -> None:
    torch.manual_seed(0)
    side = randomised(Side(Normalised(44), 8))
    most = count(side) * 3 // 4
    prune_channels(side, batches(), most, "prune")
    widths = [norm.num_features for norm in norms(side)]
    assert count(side) <= most
    assert any(width < 44 for width in widths)
    assert all(width % 8 == 0 or width == 44 for width in widths)


def test_a_network_cannot_be_narrower_than_one_chunk(normalised: Side) -> None:
    least = count(Side(Normalised(8), 8))
    says = (
        rf"prune: {least - 1} parameters were asked for, and no narrower network has fewer than {least}; ask for more"
    )
    with pytest.raises(RecipeError, match=says):
        prune_channels(normalised, batches(), least - 1, "prune")


def test_statistics_are_those_of_the_narrow_network(normalised: Side) -> None:
    prune_channels(normalised, batches(), count(normalised) // 2, "prune")
    assert not normalised.training
    with torch.no_grad():
        features = [normalised.tower.dense[0](batch) for batch in batches()]  # type: ignore[index,operator,union-attr]
    first = norms(normalised)[0]
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0), atol=1e-5)
    assert {norm.momentum for norm in norms(normalised)} == {0.1}


def ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().to(torch.float64)


def test_scores_say_what_the_outputs_lose(normalised: Side) -> None:
    """Against the truth, from setting each channel to zero: not equal, for it is no straight line, but ranked alike."""
    many = batches(64, 4)
    scores = gate_scores(normalised, many)
    readers = [m for m in normalised.modules() if isinstance(m, nn.Linear) or getattr(m, "groups", 0) == 1]
    assert set(scores) == set(readers)  # not the depthwise one: it hands each channel on by itself
    for layer in readers[1:]:  # the first reads the pixels
        with torch.no_grad():
            lost = torch.stack([change_without(normalised, layer, channel, many) for channel in range(32)])
        assert scores[layer].shape == (64, 32)
        assert torch.corrcoef(torch.stack([ranks(scores[layer].square().mean(0)), ranks(lost)]))[0, 1] > 0.9
    assert all(parameter.grad is None for parameter in normalised.parameters())


def change_without(side: Side, layer: nn.Module, channel: int, many: list[Tensor]) -> Tensor:
    """Sum of squares by which the unit outputs move when the layer does not see one of its inputs."""
    without = copy.deepcopy(side)
    twin = list(without.modules())[list(side.modules()).index(layer)]
    twin.weight[:, channel] = 0  # type: ignore[index,operator]
    frames = torch.cat(many)
    one, two = (nn.functional.normalize(model(frames), dim=1) for model in (side, without))
    return (one - two).square().sum()


def test_scores_count_every_output(normalised: Side) -> None:
    """What only the tokens see matters too: with an embedding that is always the same, they are all there is."""
    both = Side(normalised.tower, 8, width=4)
    nn.init.zeros_(both.projection.weight)
    scores = gate_scores(both, batches())
    assert all(scores[layer].square().mean() > 0 for layer in normalised.tower.modules() if layer in scores)
    blind = Side(normalised.tower, 8)
    nn.init.zeros_(blind.projection.weight)
    assert all(rows.abs().max() == 0 for rows in gate_scores(blind, batches()).values())


def test_a_block_that_is_gone_is_not_offered_again() -> None:
    tower = Blocks(0.1, 1.0, 5.0)
    leave_out(tower, ["blocks.0"])
    side = Side(tower, 4)
    assert leave_out_least(side, [(torch.randn(8, 3, 8, 8),)], 1, "test") == ("blocks.1",)
    with pytest.raises(RecipeError, match="test: 2 blocks were to be left out, and the tower has 1 that can be"):
        leave_out_least(side, [(torch.randn(8, 3, 8, 8),)], 2, "test")


def test_a_convolution_of_few_groups_keeps_its_width() -> None:
    with pytest.raises(TypeError, match="a convolution of 4 groups, not depthwise, cannot be given another"):
        fit_widths(nn.Sequential(nn.Conv2d(16, 16, 3, groups=4)), {"0.weight": torch.zeros(8, 4, 3, 3)})
