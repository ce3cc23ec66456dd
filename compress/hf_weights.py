"""The weights and shapes of transformers' CLIP and SigLIP under the names of compress/models."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def shape(config: Any) -> dict[str, Any]:
    """What the configurations of both towers say alike, as options of ours."""
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "activation": config.hidden_act,
        "eps": config.layer_norm_eps,
    }


def linear(ours: str, theirs: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`theirs`.weight and .bias under the name `ours`; a bias of zeros where there is none."""
    weight = state[f"{theirs}.weight"]
    bias = state.get(f"{theirs}.bias")
    return {f"{ours}.weight": weight, f"{ours}.bias": torch.zeros(len(weight)) if bias is None else bias}


def blocks(ours: str, theirs: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an encoder of CLIP or SigLIP under the names of compress/models/transformer.py."""
    parts = {
        "attend_norm": "layer_norm1",
        "think_norm": "layer_norm2",
        **{f"attend.{name}": f"self_attn.{name[0]}_proj" for name in ("query", "key", "value")},
        "attend.out": "self_attn.out_proj",
        "think.wide": "mlp.fc1",
        "think.narrow": "mlp.fc2",
    }
    count = 1 + max(
        int(key.removeprefix(f"{theirs}.").partition(".")[0]) for key in state if key.startswith(f"{theirs}.")
    )
    found: dict[str, Tensor] = {}
    for at in range(count):
        for own, other in parts.items():
            found |= linear(f"{ours}.{at}.{own}", f"{theirs}.{at}.{other}", state)
    return found


def text_state(projection: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of `Side` with the tower transformer_text. `state`: of the whole model, whose linear layer `projection` leads to
    the joint space."""
    return {
        "tower.words.weight": state["text_model.embeddings.token_embedding.weight"],
        "tower.positions": state["text_model.embeddings.position_embedding.weight"],
        **blocks("tower.blocks", "text_model.encoder.layers", state),
        **linear("tower.norm", "text_model.final_layer_norm", state),
        **linear("projection", projection, state),
    }
