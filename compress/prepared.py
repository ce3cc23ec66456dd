"""The images of a split at a tower's size, through the SDK's own resize, read once and kept as one .npy file, with its
sha256 beside it.

Students train on exactly what the device will feed them.
"""

import hashlib
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.file_hash import sha256_once
from compress.installed import made_by
from compress.progress import bar
from runtimes import RecipeError
from sdk.frames import prepare, read_frame
from sdk.resize import Frame, least_side

CACHE = ".work/images"
# What makes other pixels of the same files.
SOURCES = ("sdk/frames.py", "sdk/image_header.py", "sdk/pil_resize.py", "sdk/resize.py")
PACKAGES = ("numpy", "opencv-python-headless")
UNFINISHED = ".tmp.npy"


def prepared(
    images: Sequence[Path], size: int, out: Path, title: str, resize: str = "area", crop: str = "none"
) -> NDArray[np.uint8]:
    """uint8 (N, S, S, 3) RGB, memory-mapped and read-only, from a cache under the run's folder `out`. `resize`, `crop`:
    see `sdk.resize.prepare`.

    Raises FeedError for an image that cannot be read, RecipeError for a damaged cache. `title` is what the progress bar
    says.
    """
    file = _file(images, (size, resize, crop), out)
    if not file.exists():
        _write(images, (size, resize, crop), file, title)
    beside = _beside(file)
    if not beside.exists() or sha256_once(file) != beside.read_text(encoding="utf-8"):
        raise RecipeError(f"{file} is damaged: it is not what was read from the images; remove it and run again")
    frames: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    return frames


def unread(images: Sequence[Path], how: tuple[int, str, str], out: Path) -> int:
    """How many bytes `prepared` would write, which is none for what is there. `how`: size, resize and crop."""
    return 0 if _file(images, how, out).exists() else 3 * how[0] ** 2 * len(images)


def drop_others(out: Path, kept: Iterable[NDArray[np.uint8]]) -> None:
    """Remove all that `prepared` keeps under `out` but the arrays `kept`: it is of other images, or of another code."""
    stay = {Path(str(getattr(frames, "filename", ""))) for frames in kept}
    for path in (out / CACHE).glob("*"):
        if path.with_suffix(".npy") not in stay:
            path.unlink()


def _file(images: Sequence[Path], how: tuple[int, str, str], out: Path) -> Path:
    """`how`: size, resize and crop."""
    digest = hashlib.sha256(f"{how} {made_by(SOURCES, PACKAGES)}".encode())
    for path in images:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
    return out / CACHE / f"{digest.hexdigest()[:16]}.npy"


def _beside(file: Path) -> Path:
    return file.with_suffix(".sha256")


def read_prepared(path: Path, size: int, resize: str = "area", crop: str = "none") -> Frame:
    """What the SDK makes of an image file: uint8 (S, S, 3) RGB. Raises FeedError if it cannot be read."""
    return prepare(read_frame(path, least=least_side(size, resize)), size, resize, crop)


def _write(images: Sequence[Path], how: tuple[int, str, str], file: Path, title: str) -> None:
    """`how`: size, resize and crop."""
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_name(f"{file.stem}-{uuid.uuid4().hex[:8]}{UNFINISHED}")  # two processes may write the same
    shape = (len(images), how[0], how[0], 3)
    # Not through a memory map: on a full disk that kills the process without a word, and a write raises OSError.
    try:
        with building.open("wb") as out, bar(title, len(images)) as tick:
            np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for path in images:
                out.write(read_prepared(path, *how).tobytes())
                tick("")
            out.flush()
            os.fsync(out.fileno())
        _beside(file).write_text(sha256_once(building), encoding="utf-8")
        building.replace(file)
    finally:
        building.unlink(missing_ok=True)


def drop_unfinished(out: Path) -> None:
    """Remove what killed processes left half written in the cache; only for one that holds the folder `out`."""
    for left in (out / CACHE).glob(f"*{UNFINISHED}"):
        left.unlink()
