"""The smallest real run: easy-VQA's own files, but few of them, and towers that train in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.data import easy_vqa
from compress.recipe import Recipe, load_recipe

# A recipe's first part, for photos: a small tower in its smallest size.
SHOP = """
name = "shop"
disk_mb = 10
[data]
name = "photos"
[teach]
image = "timm_image"
image_options = { model = "lcnet_050" }
text_options = { vocab = 3000 }
size = 32
dim = 16
max_length = 12
epochs = 1
batch = 8
label = 1.0
[embed]
views = 2
phrases = 40
held_out = 10
words = 50
"""
TINY = """
name = "tiny"
[data]
name = "easy_vqa"
val_images = 50
[teach]
image = "timm_image"
image_options = { model = "lcnet_050" }
text_options = { vocab = 3000 }
width = 16
questions = 1
head_epochs = 1
size = 32
dim = 16
max_length = 12
epochs = 1
batch = 16
[embed]
views = 2
phrases = 40
held_out = 10
words = 50
[prune]
image = "timm_image"
image_options = { model = "lcnet_050" }
text_layers = 1
samples = 128
[distill]
questions = 1
epochs = 1
batch = 16
phrases = 8
"""


def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """easy-VQA with 64 train and 50 validation images: real files, but few."""
    whole = easy_vqa._read_split

    def few(folder: Path) -> easy_vqa.Split:
        split = whole(folder)
        keep = easy_vqa.np.arange(len(split.images)) < 114
        return easy_vqa._subset(split, keep)

    monkeypatch.setattr(easy_vqa, "_read_split", few)


def tiny_recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe, read from a file in `folder`."""
    file = folder / "tiny.toml"
    file.write_text(TINY)
    return load_recipe(file, overrides)
