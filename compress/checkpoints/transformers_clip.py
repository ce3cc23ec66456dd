"""CLIP as transformers saves it (Radford et al. 2021, arXiv 2103.00020): openai/clip-vit-base-patch32 and its kin."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.checkpoints import Checkpoint, Part, read_config
from sdk.manifest import ScoreSpec

if TYPE_CHECKING:
    from torch import Tensor

WHAT = "CLIP of transformers (model_type clip)"
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def reads(folder: Path) -> bool:
    """Whether config.json says so."""
    return read_config(folder, "config.json").get("model_type") == "clip"


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises RecipeError for what is missing or cannot be used."""
    from transformers import CLIPModel

    from compress.hf_checkpoint import Processors, TransformersOwn, load_whole
    from compress.hf_weights import shape, text_state

    processors = Processors(folder)
    model: Any = load_whole(CLIPModel, folder)
    text, state = model.config.text_config, model.state_dict()
    length = text.max_position_embeddings
    end, pad = processors.tokenizer.eos_token_id, processors.tokenizer.pad_token_id
    # 2 is what configurations said before transformers 4.31; then the highest id counts, and that is the tokenizer's.
    options = shape(text) | {"vocab": text.vocab_size, "length": length, "causal": True, "pool": "end", "pad": pad}
    options["end"] = end if text.eos_token_id == 2 else text.eos_token_id
    vision = model.config.vision_config
    return Checkpoint(
        image=Part("vit", shape(vision) | {"size": vision.image_size, "patch": vision.patch_size}, _image(state)),
        text=Part("transformer_text", options, text_state("text_projection", state)),
        dim=model.config.projection_dim,
        pixels=processors.pixels(folder, vision.image_size),
        score=ScoreSpec("softmax", float(model.logit_scale.detach().exp()), 0.0),
        tokenizer=processors.tokenizer_json(folder, length),
        length=length,
        own=TransformersOwn(model, processors, length, processors.image),
        default=TransformersOwn(model, processors, length, processors.default),
    )


def _image(state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    from compress.hf_weights import blocks, linear

    inner = "vision_model.embeddings"
    positions = state[f"{inner}.position_embedding.weight"].clone()
    positions[0] += state[f"{inner}.class_embedding"]  # see compress/models/image/vit.py
    return {
        "tower.patches.weight": state[f"{inner}.patch_embedding.weight"],
        "tower.positions": positions,
        **linear("tower.norm_first", "vision_model.pre_layrnorm", state),
        **blocks("tower.blocks", "vision_model.encoder.layers", state),
        **linear("tower.norm", "vision_model.post_layernorm", state),
        **linear("projection", "visual_projection", state),
    }
