"""The weights of open_clip's towers under the names of compress/models."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compress.models.transformer import from_multihead

State = Mapping[str, Tensor]


def image_state(state: State) -> dict[str, Tensor]:
    """Of `Side` with the tower vit. `state`: of the whole model."""
    positions = state["visual.positional_embedding"].clone()
    positions[0] += state["visual.class_embedding"]  # see compress/models/image/vit.py
    return {
        "tower.patches.weight": state["visual.conv1.weight"],
        "tower.positions": positions,
        **_renamed({"tower.norm_first": "visual.ln_pre", "tower.norm": "visual.ln_post"}, state),
        **_blocks("visual.transformer.resblocks", state),
        **_projection(state["visual.proj"].T, None),
    }


def timm_state(state: State, classifier: str) -> dict[str, Tensor]:
    """Of `Side` with the tower timm_image. `state`: of the whole model, which projects with a head of its own, or with
    the network's `classifier`, or not at all."""
    trunk, last = "visual.trunk.", f"visual.trunk.{classifier}."
    found = {
        f"tower.body.{name.removeprefix(trunk)}": tensor
        for name, tensor in state.items()
        if name.startswith(trunk) and not name.startswith(last)
    }
    for theirs in ("visual.head.proj", last[:-1]):
        if f"{theirs}.weight" in state:
            return found | _projection(state[f"{theirs}.weight"], state.get(f"{theirs}.bias"))
    return found


def text_state(state: State) -> dict[str, Tensor]:
    """Of `Side` with the tower transformer_text. `state`: of the whole model, where texts may have a module of their
    own."""
    own = "text." if "text.positional_embedding" in state else ""
    linear = state.get(f"{own}text_projection.weight")
    weight = state[f"{own}text_projection"].T if linear is None else linear
    return {
        "tower.words.weight": state[f"{own}token_embedding.weight"],
        "tower.positions": state[f"{own}positional_embedding"],
        **_renamed({"tower.norm": f"{own}ln_final"}, state),
        **_blocks(f"{own}transformer.resblocks", state),
        **_projection(weight, state.get(f"{own}text_projection.bias")),
    }


def _blocks(theirs: str, state: State) -> dict[str, Tensor]:
    parts = {
        "attend_norm": "ln_1",
        "think_norm": "ln_2",
        "think.wide": "mlp.c_fc",
        "think.narrow": "mlp.c_proj",
    }
    found: dict[str, Tensor] = {}
    at = 0
    while f"{theirs}.{at}.ln_1.weight" in state:
        ours, block = f"tower.blocks.{at}", f"{theirs}.{at}"
        found |= _renamed({f"{ours}.{own}": f"{block}.{other}" for own, other in parts.items()}, state)
        found |= from_multihead(f"{ours}.attend", f"{block}.attn", state)
        at += 1
    return found


def _renamed(names: Mapping[str, str], state: State) -> dict[str, Tensor]:
    """Weight and bias of each module, where it has them."""
    return {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in state
    }


def _projection(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"projection.weight": weight, "projection.bias": torch.zeros(len(weight)) if bias is None else bias}
