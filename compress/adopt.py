"""A foreign checkpoint becomes a teacher: the files that a trained one would have."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from compress.checkpoints import Checkpoint, Part
from compress.draft import ImageSpec, ModelFiles, TextSpec
from compress.models import check_size, image_tower, outline, text_tower
from compress.models.dual_encoder import Side
from runtimes import BundleError, RecipeError
from sdk.manifest import ImageSpec as PixelSpec
from sdk.resize import RESIZES
from sdk.text import Tokenizer


def adopt(checkpoint: Checkpoint, folder: Path, licences: dict[str, str], restricted: str) -> ModelFiles:
    """Write weights (safetensors, float32) and tokenizer.json of both sides into `folder`.

    `licences`, `restricted`: see ModelFiles. Raises as `check_deployable` does.
    """
    image, text = check_deployable(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    pixels, score = checkpoint.pixels, checkpoint.score
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer, encoding="utf-8")
    return ModelFiles(
        image=ImageSpec(
            name=checkpoint.image.tower,
            options=dict(checkpoint.image.options),
            weights=folder / "image.safetensors",
            params=_write(image, folder / "image.safetensors"),
            size=pixels.size,
            mean=pixels.mean,
            std=pixels.std,
            resize=pixels.resize,
            crop=pixels.crop,
        ),
        text=TextSpec(
            name=checkpoint.text.tower,
            options=dict(checkpoint.text.options),
            weights=folder / "text.safetensors",
            params=_write(text, folder / "text.safetensors"),
            max_length=checkpoint.length,
            tokenizer=folder / "tokenizer.json",
        ),
        dim=checkpoint.dim,
        logit_scale=score.logit_scale,
        licences=licences,
        score=score.kind,
        logit_bias=score.logit_bias,
        restricted=restricted,
    )


def check_deployable(checkpoint: Checkpoint) -> tuple[Side, Side]:
    """The image and the text side with the checkpoint's weights.

    Raises RecipeError for a tokenizer or a resize that the SDK does not take, and for options, weights or a size that
    the towers of compress/models do not.
    """
    _check_pixels(checkpoint.pixels)
    try:
        Tokenizer(checkpoint.tokenizer, checkpoint.length, "the checkpoint's tokenizer")
    except BundleError as error:
        said = str(error).rpartition("; ")[0]  # what comes last is advice for bundles
        raise RecipeError(f"no device would open its tokenizer: {said}; save another beside the weights") from error
    image = _side("image", image_tower(checkpoint.image.tower), checkpoint.image, checkpoint.dim)
    check_size(checkpoint.image.tower, checkpoint.image.options, checkpoint.pixels.size)
    return image, _side("text", text_tower(checkpoint.text.tower), checkpoint.text, checkpoint.dim)


def _check_pixels(pixels: PixelSpec) -> None:
    if pixels.resize not in RESIZES:
        raise RecipeError(
            f"the checkpoint wants frames resized by {pixels.resize!r}, and the SDK knows {', '.join(RESIZES)}; update "
            "edge-pupil"
        )
    if not isinstance(pixels.size, int):
        raise RecipeError(f"the checkpoint wants frames of {pixels.size!r} pixels; wanted squares, one whole number")
    for name, three, least in (("mean", pixels.mean, -math.inf), ("std", pixels.std, 0.0)):
        if len(three) != 3 or not all(math.isfinite(value) and value > least for value in three):
            raise RecipeError(
                f"the checkpoint's {name} of pixels is {list(three)}; wanted a number for each of 3 colours"
                + (", above 0" if name == "std" else "")
            )


def _side(which: str, tower: Any, part: Part, dim: int) -> Side:
    """The side with the weights of `part`, which are neither copied nor drawn."""
    try:
        with torch.device("meta"):
            side = Side(outline(tower, part.options), dim, projected="projection.weight" in part.state)
        side.load_state_dict(dict(part.state), strict=True, assign=True)
    except RecipeError as error:
        raise RecipeError(f"the checkpoint's {which} tower is none of ours: {error}") from error
    except Exception as error:  # of torch, for weights of other names or shapes, and of timm
        why = " ".join(str(error).split())[:200]
        raise RecipeError(
            f"the weights of the checkpoint's {which} tower are not what its configuration says ({why}); copy both "
            "from one checkpoint"
        ) from error
    return side


def _write(side: Side, path: Path) -> int:
    """Write the weights of a side; returns how many parameters it has."""
    # Copies: safetensors refuses tensors that share memory, as slices of one matrix do.
    state = {
        name: tensor.detach().to(torch.float32, copy=True).contiguous() for name, tensor in side.state_dict().items()
    }
    path.write_bytes(save(state))
    return side.count()
