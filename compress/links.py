"""One file in two places, where the disk can: what is written into neither."""

import os
import shutil


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Make `target` the file `source`: a hard link, or a copy on a disk that has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
