"""Copies of a finished run that a test may change."""

import os
import shutil
from pathlib import Path

LARGE = 1_000_000  # bytes


def copy_run(run: Path, copy: Path) -> None:
    """A copy of the folder `run` that takes no space: large files are links, which every writer of ours replaces by
    rename and none writes into. A test that writes into one itself must unlink it first."""
    shutil.copytree(run, copy, copy_function=_link_large)


def _link_large(source: str, target: str) -> None:
    if Path(source).stat().st_size < LARGE:
        shutil.copy2(source, target)
    else:
        os.link(source, target)
