"""open_clip's own format (Cherti et al. 2023, arXiv 2212.07143): open_clip_config.json, with vision transformers or
networks of timm (MobileCLIP), and texts through CLIP's tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.checkpoints import Checkpoint, Part, Vectors, read_config
from runtimes import RecipeError
from sdk.manifest import ImageSpec, ScoreSpec
from sdk.resize import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHAT = "open_clip (open_clip_config.json)"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CONFIG = "open_clip_config.json"
CROPS = {"shortest": "center-after-even", "squash": "none"}
# Parts that the towers of compress/models do not have.
FOREIGN = (
    *("hf_model_name", "hf_tokenizer_name", "attentional_pool", "embed_cls", "ls_init_value"),
    *("block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"),
)


def reads(folder: Path) -> bool:
    """Whether there is its configuration, and none of transformers', which many repositories have beside it."""
    return (folder / CONFIG).is_file() and not read_config(folder, "config.json").get("model_type")


def load(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises RecipeError for what is missing or cannot be used."""
    import open_clip
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    from compress.open_clip_tokenizer import open_clip_tokenizer
    from compress.open_clip_weights import text_state

    config = read_config(folder, CONFIG)
    asked = config.get("model_cfg")
    if not (isinstance(asked, dict) and all(isinstance(asked.get(name), dict) for name in ("vision_cfg", "text_cfg"))):
        raise RecipeError(f"{folder / CONFIG} names no vision_cfg and text_cfg; wanted a dual encoder")
    if not isinstance(config.get("preprocess_cfg"), dict):  # the library would take OpenAI's
        raise RecipeError(f"{folder / CONFIG} names no preprocess_cfg; add the one that it was trained with")
    _check_parts(folder, asked)
    try:
        vision, text = CLIPVisionCfg(**asked["vision_cfg"]), CLIPTextCfg(**asked["text_cfg"])
        model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}", weights_only=True)
    except Exception as error:  # of pickle, safetensors, torch and open_clip
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise RecipeError(
            f"{folder} cannot be loaded ({why}); wanted the weights that {CONFIG} describes, as safetensors or a "
            "pickle of tensors alone (torch.load with weights_only)"
        ) from error
    model.eval()
    words, quick = open_clip.get_tokenizer(f"local-dir:{folder}"), bool(asked.get("quick_gelu"))
    options = _shape(text, text.heads, quick) | {"vocab": text.vocab_size, "length": text.context_length}
    options |= {"causal": not text.no_causal_mask, "pool": "last" if text.pool_type == "last" else "end"}
    bias, state = getattr(model, "logit_bias", None), model.state_dict()
    return Checkpoint(
        image=_image(vision, model, state, quick),
        text=Part("transformer_text", options | {"end": words.eot_token_id, "pad": 0}, text_state(state)),
        dim=asked["embed_dim"],
        pixels=_pixels(folder, model.visual.preprocess_cfg, vision.image_size),
        score=ScoreSpec(
            "softmax" if bias is None else "sigmoid",
            float(model.logit_scale.detach().exp()),
            0.0 if bias is None else float(bias.detach()),
        ),
        tokenizer=open_clip_tokenizer(words, text.context_length),
        length=text.context_length,
        own=OpenClipOwn(model, prepare, words),
    )


def _image(vision: Any, model: Any, state: Any, quick: bool) -> Part:
    from compress.open_clip_weights import image_state, timm_state

    if vision.timm_model_name:
        options = {"model": vision.timm_model_name, "pool": vision.timm_pool or ""}
        return Part("timm_image", options, timm_state(state, model.visual.trunk.default_cfg["classifier"]))
    options = _shape(vision, vision.width // vision.head_width, quick) | {"norm_first": not vision.no_ln_pre}
    return Part("vit", options | {"size": vision.image_size, "patch": vision.patch_size}, image_state(state))


class OpenClipOwn:
    """See `compress.checkpoints.Encoder`."""

    def __init__(self, model: Any, prepare: Any, words: Any) -> None:
        self._model, self._prepare, self._words = model, prepare, words

    def ids(self, texts: Sequence[str]) -> "NDArray[np.int64]":
        """Token ids, int64 (N, L)."""
        return np.asarray(self._words(list(texts)).numpy(), np.int64)

    def images(self, frames: Sequence[Frame]) -> Vectors:
        """Unit vectors, float32 (N, D)."""
        import torch
        from PIL import Image

        with torch.no_grad():
            pixels = torch.stack([self._prepare(Image.fromarray(frame)) for frame in frames])
            return np.asarray(self._model.encode_image(pixels, normalize=True).numpy())

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (M, D)."""
        import torch

        with torch.no_grad():
            return np.asarray(self._model.encode_text(self._words(list(texts)), normalize=True).numpy())

    def logits(self, images: Vectors, texts: Vectors) -> Vectors:
        """As the model's own `get_logits` has them, (N, M)."""
        scale, bias = float(self._model.logit_scale.detach().exp()), getattr(self._model, "logit_bias", None)
        return np.asarray(scale * images @ texts.T + (0.0 if bias is None else float(bias.detach())), np.float32)


def _check_parts(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raises RecipeError, naming it, for a part of a tower that ours do not have."""
    vision, text = asked["vision_cfg"], asked["text_cfg"]
    foreign = [name for table in (vision, text) for name in FOREIGN if table.get(name)]
    foreign += [name for name in ("multimodal_cfg",) if asked.get(name)]
    pooled = "attn" not in (vision.get("timm_pool") or "")
    plain = vision.get("timm_proj", "linear") in {None, "", "none", "linear"} and pooled
    foreign += [] if plain else ["timm_proj or timm_pool"]
    foreign += ["text proj_type"] if text.get("proj_type", "linear") != "linear" else []
    foreign += ["timm_model_name"] if ":" in (vision.get("timm_model_name") or "") else []  # to be fetched elsewhere
    foreign += ["layers"] if not isinstance(vision.get("layers", 12), int) else []  # a ResNet has a list of them
    foreign += ["vision pool_type"] if vision.get("pool_type", "tok") != "tok" else []
    foreign += ["text pool_type"] if text.get("pool_type", "argmax") not in {"argmax", "last"} else []
    if foreign:
        raise RecipeError(
            f"{folder / CONFIG} asks for {', '.join(foreign)}; of open_clip, vision transformers that "
            "pool the class token, networks of timm, and text transformers with CLIP's tokenizer can be read"
        )


def _shape(config: Any, heads: int, quick: bool) -> dict[str, Any]:
    tanh = (config.act_kwargs or {}).get("approximate") == "tanh"
    return {
        "width": config.width,
        "layers": config.layers,
        "heads": heads,
        "hidden": int(config.width * config.mlp_ratio),
        "activation": "quick_gelu" if quick else "gelu_pytorch_tanh" if tanh else "gelu",
        "eps": (config.norm_kwargs or {}).get("eps", 1e-5),
    }


def _pixels(folder: Path, config: Mapping[str, Any], size: int) -> ImageSpec:
    crop, filters = CROPS.get(config["resize_mode"]), ("bicubic", "bilinear")
    if crop is None or config["interpolation"] not in filters:
        raise RecipeError(
            f"{folder / CONFIG} resizes by {config['resize_mode']!r}, {config['interpolation']!r}; "
            f"wanted {' or '.join(CROPS)}, and {' or '.join(filters)}"
        )
    return ImageSpec(size, f"pil-{config['interpolation']}", crop, tuple(config["mean"]), tuple(config["std"]))
