"""Engines that were compiled on this device, kept in a folder: bounded in size, least recently used out, never trusted.

An entry is one file: a magic line, the facts it was made for, the SHA-256 of its data, its data. What it was made for
is compared as a whole, so that a file that was copied from another machine or renamed is as foreign as a damaged one.
Both are deleted and made again, never given to an engine, which runs what it is given.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

Facts = Mapping[str, object]

LIMIT = 1 << 30
_MAGIC = b"pupil engine 1\n"
_MAX_HEADER = 1 << 16
_SUFFIX, _HALF_WRITTEN = ".engine", ".tmp"
_ABANDONED = 3600.0  # seconds after which a half-written file has no writer any more


class EngineCache:
    """A folder of entries, each found by facts that decide it. Processes may share it; nothing here raises."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """`limit`: bytes that all entries together may take. The folder is made when something is stored."""
        self._folder = folder
        self._limit = limit

    def load(self, facts: Facts) -> bytes | None:
        """The data stored for exactly these facts, or None. What is damaged or was made for others is deleted."""
        path = self._path(facts)
        try:
            data = _read(path, facts)
            os.utime(path)  # the order in which entries go is that of their last use
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s is not used, and is made again: %s", path, error)
            self.drop(facts)
            return None
        return data

    def store(self, facts: Facts, data: bytes) -> None:
        """Keep `data` for these facts, and drop what was not used for longest until all fit.

        A folder that cannot be written, or data beyond the limit, is only logged: the engine serves without.
        """
        header = _header(facts, data)
        size = len(_MAGIC) + 4 + len(header) + len(data)
        if size > self._limit:
            logger.warning("an engine of %d bytes is not kept: the cache holds %d", size, self._limit)
            return
        path = self._path(facts)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(_HALF_WRITTEN, dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.writelines((_MAGIC, len(header).to_bytes(4, "little"), header, data))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(path)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            self._prune(path)
        except OSError as error:
            logger.warning("engines cannot be kept in %s (%s), and are made anew each time", self._folder, error)

    def drop(self, facts: Facts) -> None:
        """Forget what is stored for these facts, if anything is."""
        with contextlib.suppress(OSError):
            self._path(facts).unlink()

    def _path(self, facts: Facts) -> Path:
        return self._folder / (hashlib.sha256(_canonical(facts)).hexdigest()[:32] + _SUFFIX)

    def _prune(self, newest: Path) -> None:
        entries = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process prunes as well
                stat = path.stat()
                if path.suffix == _HALF_WRITTEN and time.time() - stat.st_mtime > _ABANDONED:
                    path.unlink()
                elif path.suffix == _SUFFIX:
                    entries.append((path != newest, -stat.st_mtime_ns, stat.st_size, path))
        taken = 0
        for _, _, size, path in sorted(entries):
            taken += size
            if taken > self._limit:
                path.unlink(missing_ok=True)


def _canonical(facts: Facts) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def _header(facts: Facts, data: bytes) -> bytes:
    return json.dumps({"facts": facts, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}).encode()


def _read(path: Path, facts: Facts) -> bytes:
    """The data of an entry. Raises ValueError saying what is wrong with it, OSError when it cannot be read."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is no entry of this cache")
        length = int.from_bytes(file.read(4), "little")
        if length > _MAX_HEADER:
            raise ValueError(f"its header has {length} bytes")
        header = json.loads(file.read(length))
        if not isinstance(header, dict) or _canonical(header.get("facts", {})) != _canonical(facts):
            raise ValueError("it was made for something else")
        data = file.read()
    if len(data) != header.get("bytes") or hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise ValueError("it is damaged")
    return data
