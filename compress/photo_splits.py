"""Which photos are for training, for validation, for the test: drawn where a layout does not say, or folded for
cross-validation.

Photos that show the same are never parted: one in training would tell of the other in validation.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from compress.layouts import Listing
from compress.perceptual_hash import near_pairs
from compress.photo_scan import Scan


def near_groups(found: Scan) -> list[int]:
    """Of each photo the first one (its position) that it hangs together with by pairs that show the same; an unreadable
    one stands alone."""
    readable = [at for at in range(len(found.hashes)) if at not in found.unreadable]
    groups = list(range(len(found.hashes)))
    for at, first in zip(readable, _hanging_together(found.hashes[readable].tobytes()), strict=True):
        groups[at] = readable[first]
    return groups


@lru_cache(maxsize=4)  # a run's steps load the data again and again, and folds are of the same photos
def _hanging_together(hashes: bytes) -> tuple[int, ...]:
    values = np.frombuffer(hashes, np.uint64)
    group = list(range(len(values)))

    def first(at: int) -> int:
        while group[at] != at:
            at = group[at]
        return at

    for i, j, _ in near_pairs(values, values):
        one, other = sorted((first(i), first(j)))
        group[other] = one
    return tuple(map(first, group))


def missing(listing: Listing, shares: Mapping[str, float]) -> list[str]:
    """The splits of `shares` that no photo is in."""
    return [split for split in shares if split not in listing.splits]


def drawn(listing: Listing, shares: Mapping[str, float], seed: int, groups: Sequence[int]) -> Listing:
    """The listing with every photo in a split: "" is "train", and for a split that no photo is in, about the share of
    each class's photos is drawn, whole groups (see `near_groups`) that fit, or the smallest: one at least, if there are
    three.

    Drawn from those without a split, or from "train" where all have one: in a table that says "train" of some photos
    and nothing of the rest, those some stay, with the groups that they are in. By a hash of seed and path, so that
    photos which are added later move few of the others.
    """
    splits, wanting = [split or "train" for split in listing.splits], missing(listing, shares)
    free = "" if "" in listing.splits else "train"
    bound = {group for group, split in zip(groups, listing.splits, strict=True) if split != free}
    members: dict[int, list[int]] = defaultdict(list)
    for at, group in enumerate(groups):
        if group not in bound:
            members[group].append(at)

    def place(at: int) -> bytes:
        return hashlib.sha256(f"{seed} {listing.relative(at)}".encode()).digest()

    of_label: dict[int, list[list[int]]] = defaultdict(list)
    for unit in sorted(members.values(), key=lambda unit: min(map(place, unit))):
        for label in {listing.labels[at] for at in unit}:
            of_label[label].append(unit)
    for _, units in sorted(of_label.items()):
        for split in wanting if len(units) >= 3 else ():
            left = [unit for unit in units if splits[unit[0]] == "train"][:-1]  # one stays
            there = sum(len(unit) for unit in units if splits[unit[0]] == split)  # with another class's
            wanted = max(1, round(shares[split] * sum(map(len, units)))) - there
            for unit in _that_fit(left, wanted) or ([] if there else sorted(left, key=len)[:1]):
                for at in unit:
                    splits[at] = split
    return dataclasses.replace(listing, splits=tuple(splits))


def folded(listing: Listing, part: int, parts: int, groups: Sequence[int]) -> Listing:
    """The listing with other photos for validation: the `part`-th (from 1) of `parts` stretches of each class's train
    photos in the order of their paths, and of its validation photos; the rest is for training. Test stays.

    Stretches, not draws: neighbours often show one scene, and a photo of it in training would tell too much. Each split
    is cut by itself, since one may be of other places than the other. What a class has over after equal stretches
    goes to one part after the other. A group (see `near_groups`) goes where its first photo goes.
    """
    part_of: dict[int, int] = {}
    for split in ("val", "train"):
        over = 0
        for label in range(len(listing.products)):
            own = [at for at, each in enumerate(listing.splits) if each == split and listing.labels[at] == label]
            own.sort(key=listing.relative)
            equal, more = divmod(len(own), parts)
            sizes = [equal + ((number - over) % parts < more) for number in range(parts)]
            over += more
            for at, number in zip(own, np.repeat(range(1, parts + 1), sizes).tolist(), strict=True):
                part_of.setdefault(groups[at], number)
    splits = [
        split if split == "test" else "val" if part_of[group] == part else "train"
        for split, group in zip(listing.splits, groups, strict=True)
    ]
    return dataclasses.replace(listing, splits=tuple(splits))


def kept(listing: Listing, keep: Callable[[int], bool]) -> Listing:
    """The listing with those photos only for whose position `keep` is true; the products stay."""
    left = [at for at in range(len(listing.images)) if keep(at)]
    return dataclasses.replace(
        listing,
        images=tuple(listing.images[at] for at in left),
        labels=tuple(listing.labels[at] for at in left),
        splits=tuple(listing.splits[at] for at in left),
    )


def _that_fit(units: Sequence[list[int]], wanted: int) -> list[list[int]]:
    """Those units, from the first on, of which all photos are still wanted."""
    found = []
    for unit in units:
        if len(unit) <= wanted:
            found.append(unit)
            wanted -= len(unit)
    return found
