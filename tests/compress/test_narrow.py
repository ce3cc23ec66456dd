"""Fewer units of a transformer: what stays computes what it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compress.gates import gated, part_losses, unit_scores
from compress.models import image_tower
from compress.models.dual_encoder import Side
from compress.models.pruned import leave_out
from compress.narrow import WIDTH, add_projection, drop_projection, inventory, narrowed, unit_counts
from compress.shrink import Trunk
from tests.small_transformers import IMAGE, frames, image_side, image_trunk, text_trunk, words

TRUNKS = {
    "class": image_trunk,
    "attention": lambda: image_trunk("attention"),
    "with tokens": lambda: image_trunk(width=8),
    "text": text_trunk,
}
KEPT = {
    "heads": {"blocks.0.attend": [0, 2, 3], "blocks.1.attend": [1]},
    "hidden": {"blocks.0.think": list(range(8, 48)), "blocks.1.think": list(range(16))},
    "parts": {"blocks.0.attend": [], "blocks.1.think": []},
    "a layer": {"blocks.1.attend": [], "blocks.1.think": []},
    "width": {WIDTH: [at for at in range(32) if at % 4]},
    "all": {WIDTH: list(range(5, 29)), "blocks.0.attend": [2], "blocks.1.think": [3, 7], "blocks.0.think": []},
    "pool": {"pool.attend": [1, 3], "pool.think": list(range(8)), WIDTH: list(range(8))},
    "no pool.think": {"pool.think": []},
}


def outputs(side: Side, feeds: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        found: Any = side(*feeds)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("kind", TRUNKS)
@pytest.mark.parametrize("what", KEPT)
def test_what_stays_computes_what_it_did_with_the_gates_of_the_rest_closed(kind: str, what: str) -> None:
    """The whole side with closed gates; parts that are gone take their biases along, so there these are zero."""
    if "pool" in what and kind != "attention":
        return
    trunk, feeds = TRUNKS[kind](), words() if kind == "text" else (frames(),)
    kept = {group: torch.tensor(units, dtype=torch.int64) for group, units in KEPT[what].items()}
    with torch.no_grad():
        for group in (group for group, units in kept.items() if not len(units)):
            part = trunk.side.tower.get_submodule(group)
            (part.out if group.endswith("attend") else part.narrow).bias.zero_()  # type: ignore[union-attr]
    gates = {group: torch.zeros(1, unit_counts(trunk.side)[group]) for group in kept}
    for group, units in kept.items():
        gates[group][:, units] = 1
    with gated(trunk.side, gates):
        wanted = outputs(trunk.side, feeds)
    side, options = narrowed(trunk.side, trunk.module, trunk.options, kept)
    for one, two in zip(outputs(side, feeds), wanted, strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-4)
    changed = max(float((a - b).abs().max()) for a, b in zip(wanted, outputs(trunk.side, feeds), strict=True))
    assert changed > 1e-3
    assert unit_counts(side) == {
        group: len(kept.get(group, range(count)))
        for group, count in unit_counts(trunk.side).items()
        if group not in kept or len(kept[group])
    }
    assert side.count() == inventory(trunk.side).params(
        {**unit_counts(trunk.side), **{g: len(u) for g, u in kept.items()}}
    )
    again = Side(trunk.module.build(options, False), 24, 8 if kind == "with tokens" else 0)
    again.load_state_dict(side.state_dict(), strict=True)


@pytest.mark.parametrize("what", ["heads", "hidden"])
def test_heads_and_hidden_units_are_those_whose_weights_are_zero(what: str) -> None:
    trunk = image_trunk()
    kept = {group: torch.tensor(units) for group, units in KEPT[what].items()}
    side, _ = narrowed(trunk.side, trunk.module, trunk.options, kept)
    with torch.no_grad():
        for group, units in kept.items():
            part: Any = trunk.side.tower.get_submodule(group)
            layer, times = (part.out, part.head) if what == "heads" else (part.narrow, 1)
            gone = [unit for unit in range(unit_counts(trunk.side)[group]) if unit not in units.tolist()]
            for unit in gone:
                layer.weight[:, unit * times : (unit + 1) * times] = 0
    torch.testing.assert_close(side(frames()), trunk.side(frames()), atol=1e-5, rtol=1e-4)


def test_what_was_cut_can_be_cut_again_and_blocks_may_be_gone() -> None:
    trunk = image_trunk()
    leave_out(trunk.side.tower, ["blocks.1"])
    side, options = narrowed(trunk.side, trunk.module, trunk.options, {WIDTH: torch.arange(16)})
    assert options["each_heads"] == [4, 0, 4]
    side, options = narrowed(side, trunk.module, options, {"blocks.0.attend": torch.tensor([1])})
    assert (options["width"], options["head"], options["each_heads"]) == (16, 8, [1, 0, 4])
    assert options["each_hidden"] == [48, 0, 48]
    assert side(frames()).shape == (16, 24)


def test_a_side_whose_stream_is_the_joint_space_gets_a_projection_only_where_it_is_cut() -> None:
    side = image_side("attention", projected=False)
    before = outputs(side, (frames(),))[0]
    add_projection(side)
    torch.testing.assert_close(outputs(side, (frames(),))[0], before)
    trunk = Trunk(side, image_tower("vit"), {**IMAGE, "pool": "attention"}, ())
    cut, _ = narrowed(trunk.side, trunk.module, trunk.options, {WIDTH: torch.arange(8, 32)})
    drop_projection(cut)
    found = outputs(cut, (frames(),))[0]
    assert found.shape == before.shape
    assert not found[:, :8].any(), "what is gone is zero in the joint space"
    assert "projection.weight" in cut.state_dict()
    drop_projection(side)
    assert "projection.weight" not in side.state_dict()


@pytest.mark.parametrize("kind", ["class", "attention", "text"])
def test_scores_say_what_the_outputs_lose(kind: str) -> None:
    """Against the truth, from closing each gate: not equal, for it is no straight line, but ranked alike."""
    trunk, feeds = TRUNKS[kind](), words(64) if kind == "text" else (frames(64),)
    scores = unit_scores(trunk.side, [feeds] * 8)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in trunk.side.parameters())
    unit = torch.nn.functional.normalize
    whole = unit(outputs(trunk.side, feeds)[0], dim=1)
    found, truth = [], []
    for group, count in unit_counts(trunk.side).items():
        for at in range(count):
            gates = {group: torch.ones(1, count)}
            gates[group][0, at] = 0
            with gated(trunk.side, gates):
                moved = (unit(outputs(trunk.side, feeds)[0], dim=1) - whole).square().sum(1).mean()
            found.append(float(scores[group][at]))
            truth.append(float(moved))
    ranks = torch.tensor([found, truth]).argsort(1).argsort(1).to(torch.float64)
    assert torch.corrcoef(ranks)[0, 1] > 0.9
    losses = part_losses(trunk.side, [feeds])
    names = [name for name in unit_counts(trunk.side) if name not in {WIDTH, "pool.attend"}]
    assert list(losses) == names
    assert min(losses.values()) > 0
    assert unit_counts(trunk.side).keys() >= set(names), "all parts are there again"
