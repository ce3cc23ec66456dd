"""The Grocery Store data set: classes.csv, and lines of `path, fine id, coarse id` in train.txt, val.txt and test.txt.

Klasson, Zhang, Kjellström, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV 2019
(arXiv 1901.00711). 81 fine classes, each with a product text, and 43 coarse ones (the paper says 42). The official
splits are kept.
"""

import csv
import io
from collections import Counter
from pathlib import Path

from compress.fetch import Source
from compress.layouts import SPLITS, Listing, Product, inside, read_text
from runtimes import RecipeError

WANTS = "classes.csv beside train.txt, val.txt and test.txt, as the Grocery Store data set has them"
LICENCE = "MIT (Grocery Store data set, Klasson et al. 2019)"
SOURCE = Source(
    repository="marcusklasson/GroceryStoreDataset",
    commit="fc80ba90f803d79d0383df52c5a4ac5de99ff6fc",
    folder="dataset",
    # Of the files that the figures in this repository were measured on: for the test there was half of the list
    # and of its photos, so no digest of them all is known. They are held by GitHub's listing alone, which comes over
    # https; a mirror (--api) can give others.
    digests={
        "classes.csv": "33455fb39c344267cfce10c654bc02774cf1288f595ff148602a385de53179b1",
        "train.txt": "efa9e213a56e5ba3b6748a66eed53e4ce6351a8e3f340d0c91fa6d716f46bc6c",
        "val.txt": "3e0963663c2cd22dd5c7bf13bd8fdc70f680bfb751d0dfbdca90d3f916ee5ec6",
        "train/*.jpg": "2542ee6c5a5b298c1186f1d561a092debf4ba997f91f0340e44b598a9df7cf5d",
        "val/*.jpg": "f0327bfe5f5843e52442a295a357fa5de84280d2a427640f3850dd95c6521efe",
        "*_Description.txt": "3de99d2ece1a41d64e3a869b58c799c86e5e2f57e6f8bd422f7b0cbfbf303e87",
        "*_Iconic.jpg": "851bb51b57c2067d12ae6e6ff652d8717aa29b684ebff9815b63397e5c920851",
    },
)
ID, NAME, GROUP, TEXT = (
    "Class ID (int)",
    "Class Name (str)",
    "Coarse Class Name (str)",
    "Product Description Path (str)",
)
AGAIN = "fetch the data set again: python -m compress.data grocery --fetch DIR"
# English, for prompts: words that stay as they are for many, and those that take -es.
SAME = {"asparagus", "garlic", "ginger", "cabbage", "carrots", "satsumas", "zucchini", "fruit"}
WITH_ES = {"mango", "potato", "tomato", "peach"}
# Three names that leave out what a reader needs.
CLEARER = {"lactose medium": "lactose-free medium", "juice smooth": "smooth juice", "orange red": "orange and red"}


def read(root: Path) -> Listing | None:
    """The official lists. Raises RecipeError for a list or a text that is missing or damaged."""
    if not is_grocery(root):
        return None
    products = _products(root)
    rows = [(split, *row) for split in SPLITS for row in _rows(root, f"{split}.txt", len(products))]
    images = [path for _, path, _ in rows]
    if len(set(images)) < len(images):
        raise RecipeError(f"{Counter(images).most_common(1)[0][0]} is listed twice; {AGAIN}")
    return Listing(
        name="grocery",
        root=root,
        products=products,
        images=tuple(images),
        labels=tuple(label for _, _, label in rows),
        splits=tuple(split for split, _, _ in rows),
        licence=LICENCE,
    )


def is_grocery(root: Path) -> bool:
    """Whether the lists are there that only this layout has."""
    return (root / "classes.csv").is_file() and (root / "train.txt").is_file()


def noun(name: str, group: str, packed: bool) -> str:
    """What a prompt says of a class: "royal gala" of the group "apple" is "royal gala apples".

    `packed`: what comes in cartons is not counted. A name that does not say what it names gets the group's last word.
    """
    kind = group.rsplit(maxsplit=1)[-1]
    said = name if kind in name else f"{name} {kind}"
    for short, clear in CLEARER.items():
        said = said.replace(short, clear)
    last = said.rsplit(maxsplit=1)[-1]
    if packed or last in SAME:
        return said
    return said + ("es" if last in WITH_ES else "s")


def _products(root: Path) -> tuple[Product, ...]:
    rows = list(csv.DictReader(io.StringIO(read_text(root / "classes.csv", "classes.csv"))))
    missing = [column for column in (ID, NAME, GROUP, TEXT) if not rows or column not in rows[0]]
    if missing:
        raise RecipeError(f"{root / 'classes.csv'} has no column {missing[0]!r}, or no rows; {AGAIN}")
    if [row[ID] for row in rows] != [str(at) for at in range(len(rows))]:
        raise RecipeError(f"{root / 'classes.csv'} does not number its classes 0, 1, 2 ... in order; {AGAIN}")
    products = []
    for row in rows:
        # The paths in classes.csv begin with a slash that means the data set's own folder.
        file = str(row[TEXT]).removeprefix("/")
        text = read_text(inside(root, file, "classes.csv"), "classes.csv")
        name, group = (str(row[column]).replace("-", " ").lower() for column in (NAME, GROUP))
        packed = "Packages" in file.split("/")
        products.append(
            Product(name, noun(name, group, packed), " ".join(text.split()), group, noun(group, group, packed))
        )
    return tuple(products)


def _rows(root: Path, name: str, classes: int) -> list[tuple[Path, int]]:
    rows = []
    for number, line in enumerate(read_text(root / name, name).splitlines(), start=1):
        path, *ids = (part.strip() for part in line.split(","))
        if not line.strip():
            continue
        if len(ids) != 2 or not ids[0].isdecimal() or int(ids[0]) >= classes:
            raise RecipeError(
                f"{root / name}, line {number}: wanted `path, fine id, coarse id` with a fine id below {classes}, got "
                f"{line[:80]!r}; {AGAIN}"
            )
        rows.append((inside(root, path, f"{name}, line {number}"), int(ids[0])))
    return rows
