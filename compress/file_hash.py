"""The sha256 of a file that may be gigabytes, read once by a process however many steps ask."""

from functools import cache
from pathlib import Path

from sdk.bundle import sha256_of


def sha256_once(file: Path) -> str:
    """sha256 (hex) of what is in `file`. Raises OSError if it cannot be read."""
    status = file.stat()
    return _sha256(file, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _sha256(file: Path, inode: int, size: int, changed: int) -> str:
    """`inode`, `size` and `changed` (ns) make a file that was written again another one."""
    return sha256_of(file)
