"""The keys of what a teacher said: what decides it, so that neither too much nor too little is embedded again."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.device import kind
from compress.draft import ModelFiles, TowerSpec
from compress.installed import made_by
from compress.rows import Keys, keys_of
from compress.store import identity
from sdk.bundle import sha256_of

# The code and packages that decide it; other changes leave what was embedded.
SOURCES = (
    *("compress/models", "compress/augment.py", "compress/encode.py", "compress/questions.py", "compress/views.py"),
    *("sdk/frames.py", "sdk/pil_resize.py", "sdk/resize.py"),
)
PACKAGES = ("torch", "timm", "transformers", "tokenizers", "numpy", "opencv-python-headless")


def teacher_key(teacher: ModelFiles, device: str) -> bytes:
    """All that decides a vector but what it is of: another of these, and nothing is kept."""
    parts: tuple[TowerSpec | None, ...] = (teacher.image, teacher.text, teacher.fusion)
    specs = [
        {name: value for name, value in dataclasses.asdict(part).items() if not isinstance(value, Path)}
        for part in parts
        if part is not None
    ]
    code = made_by(SOURCES, PACKAGES)
    about = [identity(teacher), specs, sha256_of(teacher.text.tokenizer), code, kind(device)]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).digest()


def pixel_keys(frames: NDArray[np.uint8]) -> Keys:
    """A key of each frame."""
    return keys_of(b"", (np.asarray(frame).reshape(-1) for frame in frames))
