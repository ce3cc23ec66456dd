"""A store of given arrays: what a teacher might have said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compress.store import Header, link_store


def write_store(folder: Path, header: Header, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays and the header into `folder`."""
    files = {name: folder.with_name(f"{folder.name}-{name}.npy") for name in header.arrays}
    folder.parent.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        kind = header.dtype if name in {"train", "answers"} else "float32"
        np.save(file, arrays[name].astype(kind))
    link_store(folder, header, files)
    for file in files.values():
        file.unlink()
