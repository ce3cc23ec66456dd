"""Opens at once, answers rightly, and takes its time for every answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtimes._wrapped import Wrapped  # type: ignore[import-not-found]

from runtimes import Array

EXTRA = "onnx"
PACKAGES = ()
SECONDS = 0.05


def devices() -> tuple[str, ...]:
    return ("cpu",)


class Sloth(Wrapped):  # type: ignore[misc]
    def answer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(SECONDS)
        return self.inner.run(feeds)  # type: ignore[no-any-return]


def open_session(path: Path, device: str, **options: Any) -> Sloth:
    return Sloth(path, f"sloth:{device}", **options)
