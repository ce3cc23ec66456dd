"""The transformer towers that checkpoints fill, by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compress.models import check_size, image_tower, text_tower
from compress.models.dual_encoder import DualEncoder, Side
from compress.models.pruned import leave_out
from runtimes import RecipeError

IMAGE = {"size": 32, "patch": 8, "width": 32, "layers": 3, "heads": 4, "hidden": 48}
TEXT = {"vocab": 50, "length": 12, "width": 32, "layers": 2, "heads": 4, "hidden": 48, "end": 49, "pad": 0}


@pytest.mark.parametrize(("pool", "tokens"), [("class", 17), ("attention", 16)])
def test_a_vit_answers_tokens_and_pooled(pool: str, tokens: int) -> None:
    tower = image_tower("vit").build({**IMAGE, "pool": pool}, pretrained=False).eval()
    seen, pooled = tower(torch.randn(2, 3, 32, 32))
    assert (seen.shape, pooled.shape) == ((2, tokens, tower.token_width), (2, tower.width))
    with pytest.raises(ValueError, match=r"made for 32 pixels, got \(40, 40\)"):
        tower(torch.randn(2, 3, 40, 40))
    with pytest.raises(RecipeError, match="the image tower vit takes no frames of 40 pixels"):
        check_size("vit", {**IMAGE, "pool": pool}, 40)


def test_blocks_can_be_left_out() -> None:
    tower = image_tower("vit").build(IMAGE, pretrained=False).eval()
    pixels = torch.randn(1, 3, 32, 32)
    whole = tower(pixels)[1]
    leave_out(tower, tower.residual_blocks()[1:2])
    assert not torch.allclose(tower(pixels)[1], whole)


def test_what_is_pooled_is_the_first_end() -> None:
    tower = text_tower("transformer_text").build(TEXT, pretrained=False).eval()
    ids = torch.tensor([[1, 5, 49, 0, 0, 0], [1, 49, 7, 49, 0, 0], [1, 2, 3, 4, 5, 6]])
    mask = (ids != 0).to(torch.int64)
    tokens, pooled = tower(ids, mask)
    for row, place in enumerate((2, 1, 0)):  # the first, where there is no end
        torch.testing.assert_close(pooled[row], tokens[row, place])
    whole = torch.nn.functional.pad(ids, (0, 6)), torch.nn.functional.pad(mask, (0, 6))
    torch.testing.assert_close(tower(*whole)[1], pooled)


def test_later_tokens_are_not_seen_but_by_a_tower_that_is_not_causal() -> None:
    ids = torch.tensor([[1, 5, 49, 0], [1, 5, 49, 8]])
    mask = torch.ones_like(ids)
    causal, free = (
        text_tower("transformer_text").build({**TEXT, "causal": causal}, pretrained=False).eval()(ids, mask)[1]
        for causal in (True, False)
    )
    torch.testing.assert_close(causal[0], causal[1])
    assert not torch.allclose(free[0], free[1], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "image",
            {"activation": "geluu"},
            r"vit has no activation 'geluu' \(did you mean 'gelu'\?\); activations: gelu,",
        ),
        ("image", {"heads": 5}, "vit: 5 heads do not divide a width of 32"),
        ("image", {"layers": 0}, "vit: every size and count must be at least 1"),
        ("image", {"pool": "mean"}, "vit.pool is one of class, attention, got 'mean'"),
        ("image", {"patch": 64}, "a frame of 32 pixels has no patch of 64"),
        ("image", {"each_heads": [1, 2]}, r"vit.each_heads is 3 numbers from 0 on, one per layer, got \[1, 2\]"),
        (
            "image",
            {"each_hidden": [8, 8, -8]},
            r"vit.each_hidden is 3 numbers from 0 on, one per layer, got \[8, 8, -8\]",
        ),
        (
            "image",
            {"pool": "attention", "each_heads": [1, 1, 1, 0]},
            "vit: what pools by attention has at least one head",
        ),
        ("text", {"pool": "mean"}, "transformer_text.pool is one of end, last, got 'mean'"),
        ("text", {"pool": "last"}, "the last token is padding, which a causal tower gives no sense"),
        ("text", {"end": 50}, "end and pad are rows of a table of 50, got 50 and 0"),
    ],
)
def test_options_that_make_no_tower(kind: str, changes: dict[str, Any], message: str) -> None:
    tower, options = (image_tower("vit"), IMAGE) if kind == "image" else (text_tower("transformer_text"), TEXT)
    with pytest.raises(RecipeError, match=message):
        tower.build({**options, **changes}, pretrained=False)


def test_the_text_tower_brings_no_tokenizer() -> None:
    with pytest.raises(RecipeError, match=r"has no tokenizer of its own; a checkpoint brings one: set teach.source"):
        text_tower("transformer_text").tokenizer({}, 77)


def test_a_side_without_a_projection_and_a_scale_beyond_100() -> None:
    side = Side(image_tower("vit").build(IMAGE, pretrained=False), 32, projected=False).eval()
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(side(pixels), side.tower(pixels)[1])
    assert not any(name.startswith("projection") for name in side.state_dict())
    assert DualEncoder(side, side, None, logit_scale=117.8).scale().item() == pytest.approx(117.8, rel=1e-5)
    assert DualEncoder(side, side, None, logit_scale=20.0).most == 100
