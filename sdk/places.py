"""Where bundles are kept, so that a bare name finds one: `sdk.load("grocery")`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from runtimes import BundleError
from sdk.bundle import MANIFEST

# No separator and no leading dot: a name cannot climb out of a place.
_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find(name: Path | str) -> Path | str:
    """The bundle that a bare name means: the first of this name in `places()`.

    What is no bare name, or is a path that exists, is given back as it is. Raises BundleError for a name that is not
    found.
    """
    if not isinstance(name, str) or not _BARE.fullmatch(name) or _is_there(Path(name)):
        return name
    looked = list(places())
    for place in looked:
        if _is_there(place / name / MANIFEST):
            return place / name
    held = {path.parent.name for place in looked for path in place.glob(f"*/{MANIFEST}")}
    there = ", ".join(sorted(filter(_BARE.fullmatch, held))) or "none"
    raise BundleError(
        f"there is no path and no bundle called {name!r}; looked in {', '.join(map(_shown, looked))}, where these are: "
        f"{there}; give one of them, or the path of a bundle's folder"
    )


def places() -> Iterator[Path]:
    """Folders that hold bundles, in the order in which a name is looked up: `bundles` of the checkout that this
    package is in, `bundles` of the working folder, and of the cache folder."""
    checkout = Path(__file__).absolute().parents[1]
    if (checkout / "pyproject.toml").is_file():  # not where it is installed from a wheel
        yield checkout / "bundles"
    yield Path("bundles")
    home = _home()
    if home is not None:
        yield home / "bundles"


def _home() -> Path | None:
    """$PUPIL_HOME, or `pupil` in the platform's cache folder; None for a user without a home."""
    chosen = os.environ.get("PUPIL_HOME")
    if chosen:
        return Path(chosen)
    try:
        if sys.platform == "win32":
            cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            cache = Path.home() / "Library" / "Caches"
        else:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # there is no such user, as in some containers
        return None
    return cache / "pupil"


def _shown(place: Path) -> str:
    return str(place) if place.is_absolute() else str(Path.cwd() / place)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False
