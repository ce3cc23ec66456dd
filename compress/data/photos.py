"""Photographs of products, one label each, in any layout of compress/layouts: the Grocery Store data set, one folder
per class, or a CSV. What may be wrong with them is looked for before the first step (compress/photo_checks.py).
"""

import hashlib
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data import Corpus, Label, Split
from compress.layouts import SPLITS, Listing, read_listing
from compress.named import did_you_mean
from compress.photo_checks import KINDS, problems, refuse
from compress.photo_scan import content, scan
from compress.photo_splits import drawn, folded, kept, missing, near_groups
from compress.product_captions import PROMPTS, captions, words
from runtimes import RecipeError

# Golden samples are chosen from val: two sizes that are resized differently, and some of the model's own.
FEWEST_VAL = 4
SMALL_VAL = 200  # below, one photo is more than half a point of accuracy
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photos:
    """`root`: a folder of photos, or a .csv file. `accept`: kinds of problems that do not stop a run, of `KINDS`;
    unreadable files and wrong lines are then left out. Where the layout gives no "val" or "test", `val_share` or
    `test_share` of each class's photos are drawn by `split_seed`, see `drawn`. `fold`: "2/4" cross-validates, see
    `folded`; "" does not. `licence`: of the photos, where the layout does not know it.
    """

    root: str = ""
    accept: tuple[str, ...] = ()
    val_share: float = 0.15
    test_share: float = 0.15
    split_seed: int = 0
    fold: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        for kind in self.accept:
            if kind not in KINDS:
                hint = did_you_mean(kind, KINDS)
                raise RecipeError(f"data.accept: there is no kind {kind!r}{hint}; kinds: {', '.join(KINDS)}")
        if min(self.val_share, self.test_share) <= 0 or self.val_share + self.test_share > 0.8:
            raise RecipeError(
                "data.val_share and data.test_share must be above 0 and at most 0.8 together, got "
                f"{self.val_share} and {self.test_share}"
            )

        parts = self.fold.split("/")
        if self.fold and not (len(parts) == 2 and all(re.fullmatch("[1-9][0-9]?", each) for each in parts)):
            raise RecipeError(f'data.fold is like "2/4", the second of four parts, or "" for none, got {self.fold!r}')
        if self.fold and not 1 <= int(parts[0]) <= int(parts[1]) >= 2:
            raise RecipeError(f"data.fold counts from 1 to the number of parts, which is 2 or more, got {self.fold!r}")

    def check(self) -> None:
        """Reads the lists and the names of files, no photo.

        Raises RecipeError if `root` is empty, in no known layout, or has lists that are wrong or leave a split without
        photos; Unavailable if it does not exist.
        """
        groups = range(len(self._given.images))  # without a look at the photos each is a group of its own
        _check_splits(drawn(self._given, self._shares, self.split_seed, groups))

    def verify(self, out: Path) -> None:
        """Looks at every photo once (the findings stay in out/.work) and logs what is accepted, and what one photo is
        worth where there are few for validation. A fold has the problems of the whole, since it parts no photos that
        show the same.

        Raises RecipeError for problems that are not accepted; all of them stand in out/photo-problems.txt.
        """
        found = scan(self._given.images, out)
        refuse(problems(self._given, self._whole, found), self.accept, out)
        val = _check_splits(self._whole).splits.count("val")
        if val < SMALL_VAL:
            _log.warning(
                "there are %d photos for validation: each is worth %.1f points of accuracy, so neither a choice nor "
                "the gate sees less than that; more photos tell more",
                val,
                100 / val,
            )

    def count(self) -> int:
        """How many photos are not given for the test. Reads the lists only."""
        return sum(split != "test" for split in self._given.splits)

    def fingerprint(self) -> str:
        """sha256 (hex) over photos, labels, splits and texts, wherever the folder lies and whatever it is called."""
        listing = self._listing
        fields = (listing.name, self._licence, "unreadable" in self.accept, listing.products)
        digest = hashlib.sha256(repr(fields).encode())
        for at, path in enumerate(listing.images):
            row = (listing.relative(at), listing.labels[at], listing.splits[at], content(path))
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def load(self) -> Corpus:
        """The corpus. Raises as `check` does."""
        listing, fingerprint = self._listing, self.fingerprint()
        if "unreadable" in self.accept:
            unreadable = scan(listing.images).unreadable
            listing = _check_splits(kept(listing, lambda at: at not in unreadable))
        meanings = captions(listing.products)
        truth = np.array([[at in true for true in meanings.values()] for at in range(len(listing.products))], np.int8)
        train, val, test = (_split(listing, part, truth) for part in SPLITS)
        return Corpus(
            name=listing.name or _called(Path(self.root).expanduser().resolve()),
            labels=tuple(
                Label(each.name, tuple(prompt.format(each.noun) for prompt in PROMPTS), each.text, each.group)
                for each in listing.products
            ),
            captions=tuple(meanings),
            templates=PROMPTS,
            train=train,
            val=val,
            test=test,
            licence=self._licence,
            fingerprint=fingerprint,
            words=words(listing.products, meanings),
        )

    @cached_property
    def _given(self) -> Listing:
        """All photos, as the layout has them."""
        return read_listing(self.root)

    @cached_property
    def _groups(self) -> list[int]:
        """Which photos show the same. Looks at all of them."""
        return near_groups(scan(self._given.images))

    @cached_property
    def _whole(self) -> Listing:
        """All photos, each in a split, before folding."""
        if not missing(self._given, self._shares):  # nothing is drawn, so nothing has to be looked at
            return drawn(self._given, {}, self.split_seed, range(len(self._given.images)))
        return drawn(self._given, self._shares, self.split_seed, self._groups)

    @cached_property
    def _listing(self) -> Listing:
        """All photos, each in a split."""
        if not self.fold:
            return _check_splits(self._whole)
        part, parts = (int(number) for number in self.fold.split("/"))
        return _check_splits(folded(self._whole, part, parts, self._groups), "make fewer folds")

    @property
    def _shares(self) -> dict[str, float]:
        return {"val": self.val_share, "test": self.test_share}

    @property
    def _licence(self) -> str:
        return self.licence or self._listing.licence or "not stated"


def _called(root: Path) -> str:
    return root.stem if root.is_file() else root.name


def _check_splits(
    listing: Listing, remedy: str = "add photos (a class of 3 that differ gives each split one)"
) -> Listing:
    """The same listing. Raises RecipeError, with what to do, if a split has no photos, or too few to go on with."""
    for split, least in (("train", 1), ("val", FEWEST_VAL), ("test", 1)):
        if (count := listing.splits.count(split)) < least:
            raise RecipeError(
                f"{listing.root} has {len(listing.images)} photos of {len(listing.products)} classes, and {count} of "
                f"them for {split}, which needs {least}; {remedy}"
            )
    return listing


def _split(listing: Listing, part: str, truth: NDArray[np.int8]) -> Split:
    """`truth`: int8 (K, C), 1 where a caption is true of a class."""
    own = kept(listing, lambda at: listing.splits[at] == part)
    label = np.array(own.labels, np.int64)
    possible = label[:, None] == np.arange(len(truth))
    return Split(own.images, label, possible, truth[label], ())
