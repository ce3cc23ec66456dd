"""JSON Lines: one JSON value per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtimes import RecipeError


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    """Write a value per line, letters beyond ASCII as they are."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """`FILE:LINE` and value of each line that is not blank. Raises RecipeError, naming the line, for what is no JSON,
    and for a file that cannot be read."""
    try:
        # Not splitlines(): a text may hold U+2028, which is no line end in JSON Lines.
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{path}:{number} is not JSON: {error}") from error
