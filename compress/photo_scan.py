"""Photographs, each decoded once: which of them the SDK can read, and what they show, as a perceptual hash.

What was found goes by a photo's content: a photo that is added costs a look at that one, and another split of the same
photos costs none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from compress.attempt import read_record, write_record
from compress.perceptual_hash import perceptual_hash
from runtimes import FeedError
from sdk.frames import read_frame

SCAN = ".work/photos.json"
MISSING = "missing"
_known: dict[
    str, int | str
] = {}  # content -> hash, or why it is unreadable: a run's steps load the data again and again


@dataclass(frozen=True)
class Scan:
    """What looking at N photos found. `unreadable`: position -> why. `hashes`: uint64 (N,), see `perceptual_hash`; 0
    where unreadable.
    """

    unreadable: dict[int, str]
    hashes: NDArray[np.uint64]


def scan(images: Sequence[Path], out: Path | None = None) -> Scan:
    """Every photo decoded as the SDK decodes it: once per process, and once per run's folder `out` if one is given."""
    contents = [content(path) for path in images]
    stored = _stored(out / SCAN) if out is not None else {}
    _known.update(stored)
    found = _look(images, contents)
    if out is not None:
        record = {each: _known[each] for each in contents if each != MISSING}
        if record != stored:
            (out / SCAN).parent.mkdir(parents=True, exist_ok=True)
            write_record(out / SCAN, {"decoder": cv2.__version__, "photos": record})
    unreadable = {at: each for at, each in enumerate(found) if isinstance(each, str)}
    return Scan(unreadable, np.array([0 if isinstance(each, str) else each for each in found], np.uint64))


def content(path: Path) -> str:
    """sha256 (hex) of a file; `MISSING` where there is none to read."""
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return MISSING


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    """Read once per process; `size` and `changed` (ns) make a file that was written again another one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look(images: Sequence[Path], contents: Sequence[str]) -> list[int | str]:
    """Of each photo its hash, or why it is unreadable; those are decoded that nothing is known of."""
    from compress.progress import bar  # here, so that a mistake in a recipe is told without rich

    new = {each: path for each, path in zip(contents, images, strict=True) if each not in _known and each != MISSING}
    if new:
        with bar("looking at the photos", len(new)) as tick:
            for each, path in new.items():
                _known[each] = _seen(path)
                tick("")
    return [_seen(path) if each == MISSING else _known[each] for each, path in zip(contents, images, strict=True)]


def _seen(path: Path) -> int | str:
    try:
        return perceptual_hash(read_frame(path))
    except FeedError as error:
        return str(error).removeprefix(f"{str(path)!r}: ")  # the file is named already where this is shown


def _stored(file: Path) -> dict[str, int | str]:
    """What an earlier run found of its photos, if it decoded them as this one would."""
    record = read_record(file)
    photos = record.get("photos")
    return photos if record.get("decoder") == cv2.__version__ and isinstance(photos, dict) else {}
