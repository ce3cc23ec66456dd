"""SigLIP as transformers saves it (Zhai et al. 2023, arXiv 2303.15343): google/siglip-base-patch16-224 and its kin, and
the SigLIP 2 of a fixed size (Tschannen et al. 2025, arXiv 2502.14786), which are saved alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.checkpoints import Checkpoint, Part, read_config
from runtimes import RecipeError
from sdk.manifest import ScoreSpec

if TYPE_CHECKING:
    from torch import Tensor

WHAT = "SigLIP of transformers (model_type siglip)"
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def reads(folder: Path) -> bool:
    """Whether config.json says so."""
    return read_config(folder, "config.json").get("model_type") == "siglip"


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises RecipeError for what is missing or cannot be used."""
    from transformers import SiglipModel

    from compress.hf_checkpoint import Processors, TransformersOwn, load_whole
    from compress.hf_weights import shape, text_state
    from compress.siglip_tokenizer import siglip_tokenizer

    processors = Processors(folder)
    model: Any = load_whole(SiglipModel, folder)
    text, vision, state = model.config.text_config, model.config.vision_config, model.state_dict()
    if text.projection_size != vision.hidden_size or not getattr(vision, "vision_use_head", True):
        raise RecipeError(
            f"{folder} gives images vectors of {vision.hidden_size} values and texts of "
            f"{text.projection_size}; wanted an image tower with its pooling head, as wide as the texts' vectors"
        )
    length, pad = text.max_position_embeddings, processors.tokenizer.pad_token_id
    pieces = hasattr(processors.tokenizer, "sp_model")  # a Python class around SentencePiece; SigLIP 2's is none
    options = {"vocab": text.vocab_size, "length": length, "causal": False, "pool": "last", "pad": pad, "end": pad}
    image = {"size": vision.image_size, "patch": vision.patch_size, "pool": "attention"}
    return Checkpoint(
        image=Part("vit", shape(vision) | image | {"norm_first": False, "patch_bias": True}, _image(state)),
        text=Part("transformer_text", shape(text) | options, text_state("text_model.head", state)),
        dim=text.projection_size,
        pixels=processors.pixels(folder, vision.image_size),
        score=ScoreSpec("sigmoid", float(model.logit_scale.detach().exp()), float(model.logit_bias.detach())),
        tokenizer=processors.tokenizer_json(folder, length, siglip_tokenizer(processors.tokenizer) if pieces else None),
        length=length,
        own=TransformersOwn(model, processors, length, processors.image),
        default=TransformersOwn(model, processors, length, processors.default),
    )


def _image(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The features that the head pools are the joint space: there is no projection."""
    from compress.hf_weights import blocks, linear
    from compress.models.transformer import from_multihead

    head = "vision_model.head"
    return {
        **linear("tower.patches", "vision_model.embeddings.patch_embedding", state),
        "tower.positions": state["vision_model.embeddings.position_embedding.weight"],
        **blocks("tower.blocks", "vision_model.encoder.layers", state),
        **linear("tower.norm", "vision_model.post_layernorm", state),
        "tower.pool.probe": state[f"{head}.probe"],
        **from_multihead("tower.pool.attend", f"{head}.attention", state),
        **linear("tower.pool.norm", f"{head}.layernorm", state),
        **linear("tower.pool.think.wide", f"{head}.mlp.fc1", state),
        **linear("tower.pool.think.narrow", f"{head}.mlp.fc2", state),
    }
