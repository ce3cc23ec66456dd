"""A contender's process, seen from outside: orders go in, answers come out, one JSON object per line."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtimes import Unavailable

CHILD = Path(__file__).resolve().with_name("peer_child.py")


class PeerProcess:
    """`benchmarks/peer_child.py`, run by `python`. Close it, or use it in a `with` block."""

    def __init__(self, python: str, name: str) -> None:
        self._name = name
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [python, "-W", "ignore", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._said.close()
            raise Unavailable(f"{name}: {python} does not run: {error}") from error

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one order. Raises Unavailable with what went wrong in there."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            code = self._process.wait()
            self._said.seek(0)
            answer = {"error": " ".join(self._said.read().split())[-300:] or f"it ended with code {code}"}
        if "error" in answer:
            raise Unavailable(f"{self._name} does not run: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it: it stops when no more orders can come, or is killed after ten seconds."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:  # an order that it did not live to read
                    continue
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
