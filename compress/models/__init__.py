"""Towers, one file each, found by name: `models/image/<name>.py`, `models/text/<name>.py`; no torch imported here.

An image tower's file has `build(options, pretrained) -> Module` (float32 (N, 3, S, S), normalised), MEAN, STD and
LICENCE. A text tower's file has `build` (int64 ids, mask (N, L)), `tokenizer(options, max_length)`, `words()` (the
whole words it knows, most frequent first) and LICENCE. Every built tower answers (tokens (N, T, token_width), pooled
(N, width)), and has both widths as attributes. LICENCE is {upstream name: licence}. Options are a frozen dataclass,
filled by `compress.named.fill`. A tower whose weights come in a package has `check()`, which raises Unavailable if that
is not installed. A built tower that can be cut names its `residual_blocks()`, and a transformer of ours its `parts()`
too (compress/narrow.py); a text tower whose words can be cut by an option has `fewer_words(state, options)`.

What joins the tokens of both is a fusion, `models/fusion/<name>.py`: `build(options, width, answers) -> Module`, from
image tokens (N, T, width), text tokens (N, L, width) and mask (N, L) to logits (N, answers).
"""

import importlib
from collections.abc import Mapping
from typing import Any

from compress.named import check_name
from runtimes import RecipeError


def check_towers(image: str, text: str) -> None:
    """Raises RecipeError, listing the towers that exist, if there is no file for one of the two."""
    check_name("compress.models.image", image, "image tower")
    check_name("compress.models.text", text, "text tower")


def check_options(image: str, image_options: Mapping[str, Any], text: str, text_options: Mapping[str, Any]) -> None:
    """Raises what building the two towers with these options would raise; needs torch."""
    _ = outline(image_tower(image), image_options), outline(text_tower(text), text_options)


def outline(module: Any, options: Mapping[str, Any]) -> Any:
    """The tower of a file above with these options, its weights neither read nor drawn (torch's device "meta").

    Raises what `build` and the file's `check` raise.
    """
    import torch

    getattr(module, "check", lambda: None)()
    with torch.device("meta"):
        return module.build(options, pretrained=False)


def check_size(image: str, options: Mapping[str, Any], size: int) -> None:
    """Raises RecipeError if the image tower takes no frames of that edge, in pixels; needs torch."""
    import torch

    tower = outline(image_tower(image), options).eval()
    try:
        with torch.no_grad():
            tower(torch.zeros(1, 3, size, size, device="meta"))
    except Exception as error:  # whatever a library's network raises
        why = " ".join(str(error).split())[:200]
        raise RecipeError(
            f"the image tower {image} takes no frames of {size} pixels ({why}); choose another size"
        ) from error


def check_fusion(name: str) -> None:
    """Raises RecipeError, listing the fusions that exist, if there is no file of that name."""
    check_name("compress.models.fusion", name, "fusion")


def fusion_tower(name: str) -> Any:
    """The module models/fusion/<name>.py. Raises RecipeError if there is none."""
    return importlib.import_module(f"compress.models.fusion.{check_name('compress.models.fusion', name, 'fusion')}")


def image_tower(name: str) -> Any:
    """The module models/image/<name>.py. Raises RecipeError if there is none."""
    return importlib.import_module(f"compress.models.image.{check_name('compress.models.image', name, 'image tower')}")


def text_tower(name: str) -> Any:
    """The module models/text/<name>.py. Raises RecipeError if there is none."""
    return importlib.import_module(f"compress.models.text.{check_name('compress.models.text', name, 'text tower')}")
