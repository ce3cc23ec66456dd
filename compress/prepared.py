"""The images of a split at a tower's size, through the SDK's own resize, read once and kept as one .npy file.

Students train on exactly what the device will feed them.
"""

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.installed import environment
from compress.progress import bar
from sdk.frames import prepare, read_frame
from sdk.resize import least_side

CACHE = ".work/images"
UNFINISHED = ".tmp.npy"


def prepared(images: Sequence[Path], size: int, out: Path, title: str) -> NDArray[np.uint8]:
    """uint8 (N, S, S, 3) RGB, memory-mapped and read-only, from a cache under the run's folder `out`.

    Raises FeedError for an image that cannot be read. `title` is what the progress bar says.
    """
    digest = hashlib.sha256(f"area none {size} {environment()}".encode())  # another resize makes other pixels
    for path in images:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
    file = out / CACHE / f"{digest.hexdigest()[:16]}.npy"
    if not file.exists():
        _write(images, size, file, title)
    frames: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    return frames


def _write(images: Sequence[Path], size: int, file: Path, title: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_name(f"{file.stem}-{uuid.uuid4().hex[:8]}{UNFINISHED}")  # two processes may write the same
    shape = (len(images), size, size, 3)
    # Not through a memory map: on a full disk that kills the process without a word, and a write raises OSError.
    try:
        with building.open("wb") as out, bar(title, len(images)) as tick:
            np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for path in images:
                frame = read_frame(path, least=least_side(size))
                out.write(prepare(frame, size, resize="area", crop="none").tobytes())
                tick("")
        building.replace(file)
    finally:
        building.unlink(missing_ok=True)


def drop_unfinished(out: Path) -> None:
    """Remove what killed processes left half written in the cache; only for one that holds the folder `out`."""
    for left in (out / CACHE).glob(f"*{UNFINISHED}"):
        left.unlink()
