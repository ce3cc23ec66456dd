"""The choice that was measured here, kept in the app's cache folder so that the next start begins with it.

One small JSON file per bundle, tower and wish: `choice-<hash>.json`. It holds what must still be so for the choice to
count: the machine, and the versions of the engines that could run the tower. Deleting it makes the next start measure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import runtimes
from runtimes import PupilError, Unavailable, parse_target
from sdk.bundle import Bundle
from sdk.choose import Wish, fits
from sdk.machine import fingerprint
from sdk.ran_on import Tried
from sdk.schema import parse, read_json

_log = logging.getLogger(__name__)
_FORMAT = 1
_LARGEST = 1 << 20  # bytes; a choice takes a thousand


@dataclass(frozen=True)
class Choice:
    """A measured choice. `why` and `tried` are RanOn's; `complete` is False where the time ran out before all
    candidates had been opened, so that the next start goes on with those that are not among `tried`."""

    target: str
    variant: str
    why: str
    tried: tuple[Tried, ...]
    complete: bool


@dataclass(frozen=True)
class _Stored:
    format: int
    bundle: str
    machine: str
    engines: Mapping[str, str]
    choice: Choice


def recall(bundle: Bundle, tower: str, wish: Wish) -> Choice | None:
    """The choice kept for this bundle, tower, wish, machine and these engines; None where there is none.

    What lies in the file is not trusted further than that: its target opens and proves itself as any other.
    """
    if wish.cache_dir is None:
        return None
    path = _path(wish.cache_dir, bundle, tower, wish)
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        stored = parse(_Stored, read_json(path.read_text(encoding="utf-8")), path.name)
        runtime = parse_target(stored.choice.target).runtime
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, PupilError) as error:
        _log.warning("%s is no choice and is measured again: %s", path, error)
        return None
    graph = bundle.variants(tower).get(stored.choice.variant)
    fitting = graph is not None and runtime in graph.families and fits(wish.precision, graph)
    same = (stored.format, stored.bundle, stored.machine) == (_FORMAT, bundle.hash, fingerprint())
    if wish.prefer == "memory" and not stored.choice.complete:  # what others take could not be compared with it
        return None
    return stored.choice if fitting and same and dict(stored.engines) == engines(bundle, tower) else None


def keep(choice: Choice, bundle: Bundle, tower: str, wish: Wish) -> None:
    """Write a choice; whole or not at all, whoever else writes the same. A folder that cannot be written is a warning:
    the app goes on, and measures again at its next start."""
    if wish.cache_dir is None:
        return
    import tempfile

    path = _path(wish.cache_dir, bundle, tower, wish)
    stored = _Stored(_FORMAT, bundle.hash, fingerprint(), engines(bundle, tower), choice)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(dataclasses.asdict(stored), file, indent=1, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        _log.warning("the choice of %s could not be kept in %s: %s", tower, wish.cache_dir, error)


def engines(bundle: Bundle, tower: str) -> dict[str, str]:
    """Versions of the installed engines that some variant of the tower is for. Imports none of them."""
    found: dict[str, str] = {}
    for family in sorted({family for graph in bundle.variants(tower).values() for family in graph.families}):
        with contextlib.suppress(Unavailable):  # a runtime of a later version of this package
            found |= runtimes.versions(family)
    return found


def _path(folder: Path, bundle: Bundle, tower: str, wish: Wish) -> Path:
    asked = json.dumps([bundle.hash, tower, wish.precision, wish.prefer, wish.budget_mb])
    return folder / f"choice-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
