"""Splits that are drawn and folds: by class, by share, and never through photos that show the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from compress.layouts import Listing, Product, read_listing
from compress.photo_scan import Scan
from compress.photo_splits import drawn, folded, near_groups
from tests.photos import folder_shop, picture, save

SHARES = {"val": 0.2, "test": 0.2}


def listed(*rows: tuple[str, int, str]) -> Listing:
    """A listing of (label, photos, split) each; there are no files."""
    names = sorted({label for label, _, _ in rows})
    photos = [(label, split, at) for label, count, split in rows for at in range(count)]
    return Listing(
        "",
        Path("/shop"),
        tuple(Product(name, name) for name in names),
        tuple(Path("/shop") / split / label / f"{at:03d}.jpg" for label, split, at in photos),
        tuple(names.index(label) for label, _, _ in photos),
        tuple(split for _, split, _ in photos),
    )


def counts(listing: Listing) -> Counter[tuple[str, str]]:
    return Counter(
        (listing.products[label].name, split) for label, split in zip(listing.labels, listing.splits, strict=True)
    )


def test_photos_hang_together_by_pairs() -> None:
    """0 and 2 are too far apart for a pair, and 1 is near both; what cannot be read shows nothing."""
    hashes = np.array([0, 0xFF, 0xFFFF, 2**63 - 1, 0, 0], np.uint64)
    assert near_groups(Scan({4: "cut", 5: "cut"}, hashes)) == [0, 0, 0, 3, 4, 5]


def test_splits_are_drawn_by_class_and_stay(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path / "shop", {"a": 20, "b": 10, "c": 3, "d": 2})
    listing = read_listing(str(shop))
    alone = range(len(listing.images))
    made = drawn(listing, SHARES, 0, alone)
    assert counts(made) == {
        ("a", "train"): 12,
        ("a", "val"): 4,
        ("a", "test"): 4,
        ("b", "train"): 6,
        ("b", "val"): 2,
        ("b", "test"): 2,
        ("c", "train"): 1,
        ("c", "val"): 1,
        ("c", "test"): 1,
        ("d", "train"): 2,
    }
    assert drawn(listing, SHARES, 0, alone) == made
    assert drawn(listing, SHARES, 1, alone) != made
    before = {made.relative(at): split for at, split in enumerate(made.splits)}
    save(shop / "a" / "new.jpg", picture(99))
    again = drawn(read_listing(str(shop)), SHARES, 0, range(len(alone) + 1))
    moved = [split for at, split in enumerate(again.splits) if before.get(again.relative(at), split) != split]
    assert len(moved) <= 2


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_drawn_whole(seed: int) -> None:
    """Ten groups of two of `a`; of `b` groups of 10, 6 and 4; of `c` two, of which none can be spared; and each of `d`
    shows one of `e` as well."""
    listing = listed(("a", 20, ""), ("b", 20, ""), ("c", 20, ""), ("d", 10, ""), ("e", 10, ""))
    groups = [at // 2 * 2 for at in range(20)] + [20] * 10 + [30] * 6 + [36] * 4 + [40] * 15 + [55] * 5
    groups += [*range(60, 70), *range(60, 70)]
    made = drawn(listing, SHARES, seed, groups)
    for group in set(groups):
        assert len({made.splits[at] for at, each in enumerate(groups) if each == group}) == 1
    found = counts(made)
    assert found["a", "val"] == found["a", "test"] == 4
    assert sorted(found["b", split] for split in ("train", "val", "test")) == [4, 6, 10]
    assert found["c", "train"] == 20
    for label in "de":
        assert found[label, "val"] == found[label, "test"] == 2


def test_a_group_stays_with_what_is_given() -> None:
    """Photo 0 is said to be for training, so 3 that shows the same is."""
    for seed in range(10):
        made = drawn(listed(("a", 1, "train"), ("b", 9, "")), SHARES, seed, [0, 1, 2, 0, *range(4, 10)])
        assert made.splits[0] == made.splits[3] == "train"
        assert counts(made)["b", "val"] == 2


def test_shares_leave_something_to_train_on() -> None:
    made = drawn(listed(("a", 4, "")), {"val": 0.4, "test": 0.4}, 0, range(4))
    assert counts(made)["a", "train"] == 1


def test_folds_are_stretches_of_each_split() -> None:
    """Each photo is once for validation, each split is cut by itself, and none is with its like in two splits."""
    classes = {"a": (24, 3), "b": (17, 1), "c": (10, 2), "d": (40, 6), "e": (5, 0)}
    rows = [
        (name, count, split)
        for name, both in classes.items()
        for split, count in zip(("train", "val"), both, strict=True)
    ]
    listing = listed(*rows, ("a", 9, "test"))
    groups = list(range(len(listing.images)))
    folds = [folded(listing, part, 4, groups) for part in range(1, 5)]
    for split, whole in (("train", 96), ("val", 12)):
        own = [at for at, each in enumerate(listing.splits) if each == split]
        assert sorted(at for fold in folds for at in own if fold.splits[at] == "val") == own
        assert [sum(fold.splits[at] == "val" for at in own) for fold in folds] == [whole // 4] * 4
    a = [at for at in range(24) if folds[1].splits[at] == "val"]
    assert a == list(range(6, 12)), "neighbours"
    assert all(fold.splits.count("test") == 9 for fold in folds)

    groups[7] = groups[5]  # one picture, on both sides of an edge
    for part in range(1, 5):
        fold = folded(listing, part, 4, groups)
        assert fold.splits[7] == fold.splits[5] == ("val" if part == 1 else "train")
