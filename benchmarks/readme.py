"""Putting a measured table into a page, between two marks."""

from __future__ import annotations

from pathlib import Path

from runtimes import RecipeError


def fill(path: Path, marks: tuple[str, str], table: str) -> None:
    """Replace what stands between the marks. Raises RecipeError when a mark or the file is missing."""
    try:
        text = path.read_text(encoding="utf-8")
        before, mark, rest = text.partition(marks[0])
        _, end, after = rest.partition(marks[1])
        if not mark or not end:
            raise RecipeError(f"{path} lacks the marks {marks[0].strip()} and {marks[1]}; add them, each on its line")
        path.write_text(before + mark + table + end + after, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"--readme {path} cannot be filled ({error}); give a text file that can be written"
        ) from error
