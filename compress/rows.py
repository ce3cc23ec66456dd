"""Rows of an array on disk, each under a key that says all that made it, so that none is made twice.

NAME-SET.npy      the array, written row by row; SET is a hash of its rows' keys: other rows are another file
NAME-SET.index    as .npy, uint64 (rows, 4): key and checksum of each row, zeros where none is written yet

A row counts if its checksum fits. It is written after the row, so a process may be killed at any moment: what it had
finished is found again, by the same array and by one that shares some of its rows.
"""

import hashlib
import logging
import math
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]  # (rows, 2)
BYTES = 16  # of a key, and of a checksum
CHUNK = 4096  # rows that are read at a time
_UINT64 = np.dtype(np.uint64)
_log = logging.getLogger(__name__)


def keys_of(made_by: bytes, rows: Iterable[bytes | NDArray[Any]]) -> Keys:
    """uint64 (rows, 2): a hash of `made_by`, which all share, and of each row (bytes, or an array of one axis)."""
    return _hashes(rows, hashlib.blake2b(made_by, digest_size=BYTES).digest())


class Rows:
    """An array whose rows are written in any order; a row is one place of all axes but the last.

    `name`, `shape`: of the array. `file`: where. `missing`: bool (rows,), those still to be made.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: str, keys: Keys) -> None:
        """`keys`: of all rows, in order. What other arrays of that name in `folder` hold of them is copied.

        Raises ValueError if there is not one key per row, OSError when the disk is full.
        """
        if math.prod(shape[:-1]) != len(keys):
            raise ValueError(f"{name} has {math.prod(shape[:-1])} rows and {len(keys)} keys; give one for each")
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.shape, self._dtype, self._keys = name, shape, np.dtype(dtype), keys
        digest = hashlib.sha256(f"{shape} {dtype}".encode() + keys.tobytes()).hexdigest()
        self.file = folder / f"{name}-{digest[:16]}.npy"
        wanted = {self.file: (shape, self._dtype), _index(self.file): ((len(keys), 4), _UINT64)}
        if not all(_is(file, *what) for file, what in wanted.items()):
            for file, what in wanted.items():
                _blank(file, *what)
        self.missing = ~_sound(self.file, np.arange(len(keys)))
        if self.missing.any():
            self._part()
            for other in sorted(set(folder.glob(f"{name}-*.npy")) - {self.file}):
                self._take(other)

    @property
    def nbytes(self) -> int:
        """Of the array, without the file's header."""
        return math.prod(self.shape) * self._dtype.itemsize

    def write(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write `values` (len(rows), width) at those of `rows` that are missing: what is there may be a finished
        step's. Raises OSError when the disk is full."""
        new = self.missing[rows]
        if not new.any():
            return
        rows, values = rows[new], np.ascontiguousarray(values[new], self._dtype)
        entries = np.hstack([self._keys[rows], _hashes(values)])
        cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for file, lines in ((self.file, values), (_index(self.file), entries)):  # in this order
            offset = np.load(file, mmap_mode="r").offset
            # Not through the memory map: on a full disk that kills the process without a word.
            with file.open("r+b") as out:
                for start, end in pairwise(cuts):  # neighbours at once
                    out.seek(offset + int(rows[start]) * lines[0].nbytes)
                    out.write(lines[start:end].tobytes())
        self.missing[rows] = False

    def drop_others(self) -> None:
        """Remove all other arrays of that name."""
        for path in self.file.parent.glob(f"{self.name}-*"):
            if path not in (self.file, _index(self.file)):
                path.unlink()

    def _part(self) -> None:
        """Part from whoever holds the file too, as a link: it was whole, and stays as it is."""
        if self.file.stat().st_nlink > 1:
            building = self.file.with_suffix(".tmp")
            shutil.copyfile(self.file, building)
            building.replace(self.file)

    def _take(self, other: Path) -> None:
        """Copy the rows that are missing from another array, if it has some."""
        lines = _lines(other)
        if lines is None or lines.shape[1:] != self.shape[-1:] or lines.dtype != self._dtype:
            return
        if not _is(_index(other), (len(lines), 4), _UINT64):
            return
        rows = np.flatnonzero(self.missing)
        places = _places(np.load(_index(other))[:, :2], self._keys[rows])
        rows, places = rows[places >= 0], places[places >= 0]
        sound = _sound(other, places)
        rows, places = rows[sound], places[sound]
        for at in range(0, len(rows), CHUNK):
            self.write(rows[at : at + CHUNK], lines[places[at : at + CHUNK]])


def _hashes(rows: Iterable[bytes | NDArray[Any]], key: bytes = b"") -> Keys:
    """uint64 (rows, 2)."""
    contents = (row if isinstance(row, bytes) else row.data for row in rows)
    made = (hashlib.blake2b(content, digest_size=BYTES, key=key).digest() for content in contents)
    return np.frombuffer(b"".join(made), np.uint64).reshape(-1, 2)


def _sound(file: Path, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool (len(places),): which of these rows of an array are written, and as they were."""
    lines, index = _lines(file), np.load(_index(file), mmap_mode="r")
    sound, damaged = np.zeros(len(places), bool), 0
    for at in range(0, len(places) if lines is not None else 0, CHUNK):
        chosen = places[at : at + CHUNK]
        entries = np.asarray(index[chosen])
        written = np.flatnonzero(entries.any(axis=1))
        fits = (_hashes(np.asarray(lines[chosen[written]])) == entries[written, 2:]).all(axis=1)
        sound[at + written[fits]] = True
        damaged += int((~fits).sum())
    if damaged:
        _log.warning("%s is damaged: %d of its rows are not what was written, and are made again", file, damaged)
    return sound


def _places(have: Keys, wanted: Keys) -> NDArray[np.int64]:
    """Where each of `wanted` is among `have`, -1 where it is not."""
    if not len(have):
        return np.full(len(wanted), -1)
    order = np.argsort(have[:, 0], kind="stable")
    found = order[np.searchsorted(have[:, 0], wanted[:, 0], sorter=order).clip(max=len(have) - 1)]
    return np.where((have[found] == wanted).all(axis=1), found, -1)


def _index(file: Path) -> Path:
    return file.with_suffix(".index")


def _lines(file: Path) -> Any:
    """An array as (rows, width), memory-mapped; None, and a warning, where it cannot be read."""
    try:
        found = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        _log.warning("%s is damaged (%s), and is made again", file, error)
        return None
    return found.reshape(-1, found.shape[-1])


def _is(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an .npy file is there and holds such an array."""
    if not file.exists():
        return False
    found = _lines(file)
    return found is not None and found.size == math.prod(shape) and found.dtype == dtype


def _blank(file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """An array of zeros, whole or not at all."""
    building = file.with_suffix(".tmp")
    with building.open("wb") as out:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        out.truncate(out.tell() + math.prod(shape) * dtype.itemsize)
    building.replace(file)
