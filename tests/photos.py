"""Photographs for tests: the real ones where they are, and tiny shops made of random textures, saved as real JPEGs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from sdk.frames import Frame

ROOT = Path(__file__).parents[1]


def grocery_root() -> Path:
    """The folder of the Grocery Store photos; skips the test if they are not here."""
    where = Path(os.environ["PUPIL_DATA"]) if "PUPIL_DATA" in os.environ else ROOT.parent / "shared/data/grocery"
    if not (where / "classes.csv").is_file():
        pytest.skip(f"needs the Grocery Store photos: PUPIL_DATA (or {where}) holds no classes.csv")
    return where


def picture(seed: int, side: int = 48) -> Frame:
    """uint8 (side, side, 3) RGB: smooth random blobs. Another seed is another picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def save(path: Path, frame: Frame, quality: int = 90) -> Path:
    """Write an RGB frame as JPEG, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # imencode, since imwrite says nothing when it fails
    coded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    path.write_bytes(coded.tobytes())
    return path


def folder_shop(root: Path, counts: Mapping[str, int], first: int = 0) -> Path:
    """One folder per class, each with so many photos; `counts`: "apple", or "train/apple" with splits."""
    seed = first
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            save(root / folder / f"{number:03d}.jpg", picture(seed := seed + 1))
    return root


def table_shop(root: Path, counts: Mapping[str, int], columns: Mapping[str, Mapping[str, str]] | None = None) -> Path:
    """A CSV of image, label and `columns` (column -> label -> cell) beside the photos; returns the CSV."""
    folder_shop(root / "photos", counts)
    more = columns or {}
    lines = [",".join(["image", "label", *more])]
    for label, count in counts.items():
        cells = [f'"{column.get(label, "")}"' for column in more.values()]
        lines += [",".join([f"photos/{label}/{number:03d}.jpg", label, *cells]) for number in range(count)]
    (root / "shop.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "shop.csv"


CLASSES = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str),"
    "Product Description Path (str)"
)
GROCERIES = {
    "Royal-Gala": ("Apple", "Fruit", "Royal Gala is crispy. The peel is thin and red."),
    "Granny-Smith": ("Apple", "Fruit", "Granny Smith is a green apple. Fits well in pies."),
    "Oatly-Oat-Milk": ("Oat-Milk", "Packages", "A natural oat drink. Fits well in pies."),
}


def grocery_shop(root: Path, counts: Mapping[str, int] | None = None) -> Path:
    """Three classes in the Grocery Store layout. `counts`: photos per class by split."""
    seed, lists = 0, dict.fromkeys(("train", "val", "test"), "")
    table = [CLASSES]
    for label, (name, (group, kind, text)) in enumerate(GROCERIES.items()):
        description = f"/texts/{kind}/{name}_Description.txt"
        (root / description[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / description[1:]).write_text(f"{text}\n", encoding="utf-8")
        coarse = list({group: 0 for group, _, _ in GROCERIES.values()}).index(group)
        table.append(f"{name},{label},{group},{coarse},/texts/none.jpg,{description}")
        for split, count in (counts or {"train": 6, "val": 2, "test": 3}).items():
            for number in range(count):
                path = f"{split}/{kind}/{name}/{name}_{number:03d}.jpg"
                save(root / path, picture(seed := seed + 1))
                lists[split] += f"{path}, {label}, {coarse}\n"
    (root / "classes.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    for split, text in lists.items():
        (root / f"{split}.txt").write_text(text, encoding="utf-8")
    return root
