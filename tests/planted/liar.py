"""Opens at once, and is the fastest of all: it computes nothing, and answers wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from runtimes._wrapped import Wrapped  # type: ignore[import-not-found]

from runtimes import Array

EXTRA = "onnx"
PACKAGES = ()


def devices() -> tuple[str, ...]:
    return ("cpu",)


class Liar(Wrapped):  # type: ignore[misc]
    def answer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.ones((1, *port.shape[1:]), port.dtype) for name, port in self.outputs.items()}


def open_session(path: Path, device: str, **options: Any) -> Liar:
    return Liar(path, f"liar:{device}", **options)
