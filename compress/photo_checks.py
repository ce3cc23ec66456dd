"""Everything that is wrong with photographs, told before training: all of it at once, in one list.

lists        lines of lists, and files, that do not say which photo has which label
unreadable   files that the SDK cannot decode, or that are not there
few          classes with fewer than 5 photos to train on, before validation and test are drawn from them
duplicates   one photo in two of train, val and test, as the same bytes or the same picture
empty        labels without photos
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from compress.layouts import SPLITS, Listing
from compress.perceptual_hash import near_pairs
from compress.photo_scan import Scan
from runtimes import RecipeError

KINDS = {
    "lists": "mistakes in lists and folders",
    "unreadable": "unreadable files",
    "few": "classes with fewer than 5 photos to train on",
    "duplicates": "pairs of photos in two splits that show the same",
    "empty": "labels without photos",
}
APART = " (of photos that show the same leave one, or put them into one split)"
FEWEST = 5
LIST = "photo-problems.txt"
EXAMPLES = 3
_log = logging.getLogger(__name__)


def problems(given: Listing, listing: Listing, found: Scan) -> dict[str, list[str]]:
    """One line for each problem, by kind, in the order of `KINDS`; no kind without problems. `given`: as the layout has
    the photos; `listing`: the same, each in a split.
    """
    unreadable = [f"{listing.relative(at)}: {why}" for at, why in sorted(found.unreadable.items())]
    free, trained, any_split = ([0] * len(listing.products) for _ in range(3))
    for at, label in enumerate(listing.labels):
        if at not in found.unreadable:
            any_split[label] += 1
            trained[label] += listing.splits[at] == "train"
            free[label] += given.splits[at] in ("", "train")
    names = [product.name for product in listing.products]
    few = [
        f"{name!r} has {count}" + (f", of which {left} would be left" if left < count else "")
        for name, count, left, all_of in zip(names, free, trained, any_split, strict=True)
        if all_of and count < FEWEST
    ]
    empty = [repr(name) for name, count in zip(names, any_split, strict=True) if not count]
    lists = list(given.mistakes)
    made = {
        "lists": lists,
        "unreadable": unreadable,
        "few": few,
        "duplicates": _duplicates(listing, found),
        "empty": empty,
    }
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
