"""One process at a time in a run's folder: a second one would take away what the first is writing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from compress.attempt import read_record
from runtimes import RecipeError

_BEYOND = 1 << 20  # on Windows what is locked cannot be read, so it is a byte behind what the file holds


@contextmanager
def held(marker: Path, chosen_by: str = "--out") -> Iterator[None]:
    """Hold a folder of ours within the block, by its marker, a JSON file that tells the process as "pid". Both are made
    if they are not there. `chosen_by`: what sets the folder, for messages.

    The system lets go of a lock when the process that holds it ends, however it ends, so none is ever stale. Raises
    RecipeError, naming the process, if another one holds it, or if the folder cannot be written.
    """
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        file = marker.open("ab")
    except OSError as error:
        raise RecipeError(
            f"cannot write into {chosen_by} {marker.parent}: {error.strerror}; choose another {chosen_by}"
        ) from error
    with file:
        if not _take(file):
            raise RecipeError(
                f"{chosen_by} {marker.parent} is in use by the process {read_record(marker).get('pid')}; wait until it "
                f"ends, or choose another {chosen_by}"
            )
        yield


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes]) -> bool:
        file.seek(_BEYOND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
