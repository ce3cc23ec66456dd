"""Towers, one file each, found by name: `models/image/<name>.py` and `models/text/<name>.py`; no torch imported here.

An image tower's file has `build(options, pretrained) -> Module` (float32 (N, 3, S, S), normalised, to (N, width)),
MEAN, STD and LICENCE. A text tower's file has `build` (int64 ids, mask (N, L) to (N, width)), `tokenizer(options,
max_length)`, `words()` (the whole words it knows, most frequent first) and LICENCE. Every built tower has the
attribute `width`. LICENCE is {upstream name: licence}. Options are a frozen dataclass, filled by `compress.named.fill`.
A tower whose weights come in a package has `check()`, which raises Unavailable if that is not installed.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from compress.named import check_name


def check_towers(image: str, text: str) -> None:
    """Raises RecipeError, listing the towers that exist, if there is no file for one of the two."""
    check_name("compress.models.image", image, "image tower")
    check_name("compress.models.text", text, "text tower")


def check_options(image: str, image_options: Mapping[str, Any], text: str, text_options: Mapping[str, Any]) -> None:
    """Raises what building the two towers with these options would raise; takes a second, needs torch."""
    for module, options in ((image_tower(image), image_options), (text_tower(text), text_options)):
        getattr(module, "check", lambda: None)()  # without its pretrained weights a tower builds all the same
        module.build(options, pretrained=False)


def image_tower(name: str) -> Any:
    """The module models/image/<name>.py. Raises RecipeError if there is none."""
    return importlib.import_module(f"compress.models.image.{check_name('compress.models.image', name, 'image tower')}")


def text_tower(name: str) -> Any:
    """The module models/text/<name>.py. Raises RecipeError if there is none."""
    return importlib.import_module(f"compress.models.text.{check_name('compress.models.text', name, 'text tower')}")
