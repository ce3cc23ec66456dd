"""Photographs of products, one label each, in any layout of compress/layouts: the Grocery Store data set, one folder
per class, or a CSV. What may be wrong with them is looked for before the first step (compress/photo_checks.py).
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data import Corpus, Label, Split
from compress.layouts import SPLITS, Listing, read_listing
from compress.named import did_you_mean
from compress.photo_checks import KINDS, problems, refuse, scan
from compress.product_captions import PROMPTS, captions, words
from runtimes import RecipeError


@dataclass(frozen=True)
class Photos:
    """`root`: a folder of photos, or a .csv file. `accept`: kinds of problems that do not stop a run, of `KINDS`;
    unreadable files are then left out. Where the layout gives no "val" or "test", `val_share` or `test_share` of each
    class's photos are drawn by `split_seed`, see `drawn`. `fold`: "2/4" cross-validates, see `folded`; "" does not.
    `licence`: of the photos, where the layout does not know it.
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
        _ = self._listing

    def verify(self, out: Path) -> None:
        """Looks at every photo once (the findings stay in out/.work) and logs what is accepted.

        Raises RecipeError for problems that are not; all of them stand in out/photo-problems.txt.
        """
        found = scan(self._listing, self.fingerprint(), out)
        refuse(problems(self._listing, found), self.accept, out)

    def fingerprint(self) -> str:
        """sha256 (hex) over photos, labels, splits and texts, wherever the folder lies and whatever it is called."""
        listing = self._listing
        fields = (listing.name, self._licence, "unreadable" in self.accept, listing.products)
        digest = hashlib.sha256(repr(fields).encode())
        for at, path in enumerate(listing.images):
            row = (listing.relative(at), listing.labels[at], listing.splits[at], _content(path))
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def load(self) -> Corpus:
        """The corpus. Raises as `check` does."""
        listing, fingerprint = self._listing, self.fingerprint()
        if "unreadable" in self.accept:
            unreadable = scan(listing, fingerprint).unreadable
            listing = kept(listing, lambda at: at not in unreadable)
            _no_split_empty(listing)
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
    def _listing(self) -> Listing:
        """All photos, each in a split."""
        listing = drawn(read_listing(self.root), {"val": self.val_share, "test": self.test_share}, self.split_seed)
        if self.fold:
            part, parts = (int(number) for number in self.fold.split("/"))
            listing = folded(listing, part, parts)
        _no_split_empty(listing)
        return listing

    @property
    def _licence(self) -> str:
        return self.licence or self._listing.licence or "not stated"


def drawn(listing: Listing, shares: dict[str, float], seed: int) -> Listing:
    """The listing with every photo in a split: "" is "train", and for a split that no photo is in, the share of each
    class's photos is drawn: at least one, if there are three.

    Drawn from those without a split, or from "train" where all have one: in a table that says "train" of some photos
    and nothing of the rest, those some stay. By a hash of seed and path, so that photos which are added later move few
    of the others.
    """
    splits = [split or "train" for split in listing.splits]
    order = sorted(
        (at for at, split in enumerate(listing.splits) if split == ("" if "" in listing.splits else "train")),
        key=lambda at: hashlib.sha256(f"{seed} {listing.relative(at)}".encode()).digest(),
    )
    missing = [split for split in shares if split not in splits]
    for label in range(len(listing.products)):
        own = [at for at in order if listing.labels[at] == label]
        start = 0
        for split in missing if len(own) >= 3 else ():
            count = max(1, round(shares[split] * len(own)))
            for at in own[start : start + count]:
                splits[at] = split
            start += count
    return dataclasses.replace(listing, splits=tuple(splits))


def folded(listing: Listing, part: int, parts: int) -> Listing:
    """The listing with other photos for validation: of each class's train and validation photos in the order of their
    paths, those in the `part`-th (from 1) of `parts` equal stretches; the rest is for training. Test stays.

    Stretches, not draws: neighbours often show one scene, and a photo of it in training would tell too much.
    """
    splits = list(listing.splits)
    for label in range(len(listing.products)):
        own = [at for at, split in enumerate(splits) if listing.labels[at] == label and split != "test"]
        own.sort(key=listing.relative)
        start, end = (round(len(own) * edge / parts) for edge in (part - 1, part))
        for place, at in enumerate(own):
            splits[at] = "val" if start <= place < end else "train"
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


def _called(root: Path) -> str:
    return root.stem if root.is_file() else root.name


def _no_split_empty(listing: Listing) -> None:
    for split in SPLITS:
        if split not in listing.splits:
            raise RecipeError(
                f"{listing.root} has {len(listing.images)} photos of {len(listing.products)} classes, and none of them "
                f"is for {split}; add photos (a class of 3 gives each split one)"
            )


def _split(listing: Listing, part: str, truth: NDArray[np.int8]) -> Split:
    """`truth`: int8 (K, C), 1 where a caption is true of a class."""
    own = kept(listing, lambda at: listing.splits[at] == part)
    label = np.array(own.labels, np.int64)
    possible = label[:, None] == np.arange(len(truth))
    return Split(own.images, label, possible, truth[label], ())


def _content(path: Path) -> str:
    """sha256 (hex) of a file; "missing" where there is none to read, which `verify` tells."""
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return "missing"


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    """Read once per process; `size` and `changed` (ns) make a file that was written again another one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
