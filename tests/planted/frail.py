"""Runs in a worker process of its own, which can be killed: an engine that fails for real."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from runtimes._wrapped import Wrapped  # type: ignore[import-not-found]

from runtimes import Array, Unavailable

EXTRA = "onnx"
PACKAGES = ()
OPENED: list[Frail] = []

_WORKER = """
import io, sys
import numpy as np
import runtimes
with runtimes.open_session("ort:cpu", sys.argv[1]) as session:
    while size := sys.stdin.buffer.read(8):
        with np.load(io.BytesIO(sys.stdin.buffer.read(int.from_bytes(size, "big")))) as feeds:
            answer = session.run(dict(feeds))
        data = io.BytesIO()
        np.savez(data, **answer)
        sys.stdout.buffer.write(len(data.getvalue()).to_bytes(8, "big") + data.getvalue())
        sys.stdout.buffer.flush()
"""


def devices() -> tuple[str, ...]:
    return ("cpu",)


class Frail(Wrapped):  # type: ignore[misc]
    def __init__(self, path: Path, target: str, **options: Any) -> None:
        super().__init__(path, target, **options)
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", _WORKER, str(path)]
        self.worker = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        OPENED.append(self)

    def answer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        data = io.BytesIO()
        np.savez(data, **feeds)
        assert self.worker.stdin is not None and self.worker.stdout is not None
        try:
            with self._lock:
                self.worker.stdin.write(len(data.getvalue()).to_bytes(8, "big") + data.getvalue())
                self.worker.stdin.flush()
                size = int.from_bytes(self.worker.stdout.read(8), "big")
                if not size:
                    raise BrokenPipeError("it ended")
                with np.load(io.BytesIO(self.worker.stdout.read(size))) as answer:
                    return dict(answer)
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed
            raise Unavailable(f"the worker process of {self.target} is gone: {error}") from error

    def close(self) -> None:
        super().close()
        self.worker.kill()
        self.worker.communicate()


def open_session(path: Path, device: str, **options: Any) -> Frail:
    return Frail(path, f"frail:{device}", **options)
