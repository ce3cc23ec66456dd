"""Everything that is wrong with photographs, told before training: all of it at once, in one list.

unreadable   files that the SDK cannot decode, or that are not there
few          classes with fewer than 5 train photos
duplicates   one photo in two of train, val and test, as the same bytes or the same picture
empty        labels without photos
"""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from compress.layouts import SPLITS, Listing
from compress.perceptual_hash import near_pairs, perceptual_hash
from runtimes import FeedError, RecipeError
from sdk.frames import read_frame

KINDS = {
    "unreadable": "unreadable files",
    "few": "classes with fewer than 5 train photos",
    "duplicates": "pairs of photos in two splits that show the same",
    "empty": "labels without photos",
}
APART = (
    " (of photos that show the same leave one, or keep them in one split: in a .csv, write train for them in the "
    "column split; from the rows where it is empty, the other splits are drawn)"
)
FEWEST = 5
LIST = "photo-problems.txt"
SCAN = ".work/photos.json"
EXAMPLES = 3
_log = logging.getLogger(__name__)
_scans: dict[str, "Scan"] = {}  # by key: a run's steps load the data again and again


@dataclass(frozen=True)
class Scan:
    """What looking at N photos found. `unreadable`: position -> why. `hashes`: uint64 (N,), see `perceptual_hash`; 0
    where unreadable.
    """

    unreadable: Mapping[int, str]
    hashes: NDArray[np.uint64]


def scan(listing: Listing, fingerprint: str, out: Path | None = None) -> Scan:
    """Every photo decoded as the SDK decodes it: once per process, and once per run's folder `out` if one is given.

    `fingerprint`: of the photos, by which an earlier scan is known again.
    """
    key = hashlib.sha256(f"{fingerprint} {cv2.__version__}".encode()).hexdigest()
    if key not in _scans:
        file = out / SCAN if out is not None else None
        _scans[key] = (_stored(file, key) if file is not None else None) or _look(listing, file, key)
    return _scans[key]


def problems(listing: Listing, found: Scan) -> dict[str, list[str]]:
    """One line for each problem, by kind, in the order of `KINDS`; no kind without problems."""
    unreadable = [f"{listing.relative(at)}: {why}" for at, why in sorted(found.unreadable.items())]
    trained, any_split = ([0] * len(listing.products) for _ in range(2))
    for at, label in enumerate(listing.labels):
        if at not in found.unreadable:
            any_split[label] += 1
            trained[label] += listing.splits[at] == "train"
    names = [product.name for product in listing.products]
    few = [
        f"{name!r} has {count}"
        for name, count, all_of in zip(names, trained, any_split, strict=True)
        if all_of and count < FEWEST
    ]
    empty = [repr(name) for name, count in zip(names, any_split, strict=True) if not count]
    made = {"unreadable": unreadable, "few": few, "duplicates": _duplicates(listing, found), "empty": empty}
    return {kind: lines for kind, lines in made.items() if lines}


def refuse(found: Mapping[str, Sequence[str]], accept: Collection[str], out: Path) -> None:
    """Log the kinds of problems that are accepted; all of them are written to out/photo-problems.txt.

    Raises RecipeError for the others: one line with their counts and first examples, and what to do.
    """
    file = out / LIST
    if not found:
        file.unlink(missing_ok=True)  # of a run before
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(
        f"# {KINDS[kind]}: {len(lines)}\n" + "".join(f"{line}\n" for line in lines) for kind, lines in found.items()
    )
    file.write_text(text, encoding="utf-8")
    for kind in found:
        if kind in accept:
            _log.warning("accepted: %s; all in %s", _summary(kind, found[kind]), file)
    refused = [kind for kind in found if kind not in accept]
    if refused:
        told = "; ".join(_summary(kind, found[kind]) for kind in refused)
        kinds = ", ".join(f'"{kind}"' for kind in [*accept, *refused])
        raise RecipeError(
            f"the photos cannot be trained on as they are: {told}; all are listed in {file}. Mend them"
            f"{APART if 'duplicates' in refused else ''}, or accept them as they are with --set 'data.accept=[{kinds}]'"
        )


def _summary(kind: str, lines: Sequence[str]) -> str:
    more = ", ..." if len(lines) > EXAMPLES else ""
    return f"{KINDS[kind]}: {len(lines)} ({', '.join(lines[:EXAMPLES])}{more})"


def _look(listing: Listing, file: Path | None, key: str) -> Scan:
    from compress.progress import bar  # here, so that a mistake in a recipe is told without rich

    unreadable: dict[int, str] = {}
    hashes = np.zeros(len(listing.images), np.uint64)
    with bar("looking at the photos", len(listing.images)) as tick:
        for at, path in enumerate(listing.images):
            try:
                hashes[at] = perceptual_hash(read_frame(path))
            except FeedError as error:
                # The file is named already where this is shown.
                unreadable[at] = str(error).removeprefix(f"{str(path)!r}: ")
            tick("")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        record = {"key": key, "unreadable": unreadable, "hashes": [f"{value:016x}" for value in hashes.tolist()]}
        building = file.with_suffix(".tmp.json")
        building.write_text(json.dumps(record), encoding="utf-8")
        building.replace(file)
    return Scan(unreadable, hashes)


def _stored(file: Path, key: str) -> Scan | None:
    """The scan that an earlier run left, if it is of these very photos."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        hashes = np.array([int(value, 16) for value in record["hashes"]], np.uint64)
        return Scan({int(at): str(why) for at, why in record["unreadable"].items()}, hashes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # unreadable is the same as not there


def _duplicates(listing: Listing, found: Scan) -> list[str]:
    """Train against the rest, and val against test: no photo that is chosen or judged by may have been seen before."""
    readable = [at for at in range(len(listing.images)) if at not in found.unreadable]
    by_split = {part: [at for at in readable if listing.splits[at] == part] for part in SPLITS}
    lines = []
    for left, right in (("train", "val"), ("train", "test"), ("val", "test")):
        own, other = by_split[left], by_split[right]
        for i, j, bits in near_pairs(found.hashes[own], found.hashes[other]):
            a, b = own[i], other[j]
            how = f"{bits} of 64 bits apart"
            if not bits and listing.images[a].read_bytes() == listing.images[b].read_bytes():
                how = "the same bytes"
            lines.append(f"{listing.relative(a)} ({left}) and {listing.relative(b)} ({right}): {how}")
    return lines
