"""A CSV with the columns image and label, and if wanted text, group and split; paths are relative to the CSV.

`text` describes a product and `group` is the class that it belongs to: one each per label, given in one of its rows or
in all. Other columns are passed by.
"""

import csv
import io
from pathlib import Path

from compress.layouts import SPLITS, Listing, Product, inside, read_text
from runtimes import RecipeError

WANTS = "a .csv file (or a folder with just one) with the columns image and label, and if wanted text, group and split"

Row = tuple[int, dict[str, str]]  # the number of its line, and its cells by column


def read(root: Path) -> Listing | None:
    """Every row's photo. Raises RecipeError for rows that are cut, contradict each other or lead out of the folder."""
    files = [root] if root.suffix.lower() == ".csv" else sorted(root.glob("*.csv"))
    if len(files) != 1 or not files[0].is_file():
        return None
    file = files[0]
    rows = _rows(file)
    if rows is None:
        return None
    names = sorted({cells["label"] for _, cells in rows})
    known = {column: _of_labels(rows, column, file) for column in ("text", "group")}
    images: dict[Path, int] = {}
    for number, cells in rows:
        path = inside(file.parent, cells["image"], f"{file}, line {number}")
        if path in images:
            raise RecipeError(f"{file}: lines {images[path]} and {number} name the same photo; leave one of them")
        images[path] = number
    groups = [known["group"].get(name, "") for name in names]
    texts = [" ".join(known["text"].get(name, "").split()) for name in names]
    return Listing(
        name="",
        root=file.parent,
        products=tuple(Product(n, n, text, group, group) for n, text, group in zip(names, texts, groups, strict=True)),
        images=tuple(images),
        labels=tuple(names.index(cells["label"]) for _, cells in rows),
        splits=tuple(cells.get("split", "") for _, cells in rows),
    )


def _rows(file: Path) -> list[Row] | None:
    """The rows with their cells stripped; None if neither column is there that makes it a list of photos."""
    reader = csv.reader(io.StringIO(read_text(file, str(file)), newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        missing = {"image", "label"} - set(header)
        if len(missing) == 2:
            return None
        if missing:
            raise RecipeError(
                f"{file} has no column {missing.pop()!r}, but {', '.join(header)}; add it to the first line"
            )
        rows = [(reader.line_num, _cells(header, row, file, reader.line_num)) for row in reader if any(row)]
    except csv.Error as error:
        raise RecipeError(f"{file}, line {reader.line_num}: {error}; save it as CSV again") from error
    if not rows:
        raise RecipeError(f"{file} names no photos; add a row for each")
    return rows


def _cells(header: list[str], row: list[str], file: Path, number: int) -> dict[str, str]:
    if len(row) != len(header):
        raise RecipeError(
            f"{file}, line {number}: wanted {len(header)} cells as in the first line, got {len(row)}; put cells that "
            "hold a comma in quotes"
        )
    cells = {column: cell.strip() for column, cell in zip(header, row, strict=True)}
    if not cells["label"]:
        raise RecipeError(f"{file}, line {number}: wanted a label, got none; fill it in, or leave the row out")
    if cells.get("split", "") not in ("", *SPLITS):
        raise RecipeError(f"{file}, line {number}: split must be train, val, test or empty, got {cells['split']!r}")
    return cells


def _of_labels(rows: list[Row], column: str, file: Path) -> dict[str, str]:
    """What the rows say in `column`, by label."""
    said: dict[str, tuple[int, str]] = {}
    for number, cells in rows:
        label, value = cells["label"], cells.get(column, "")
        first, before = said.get(label, (number, value))
        if value and value != before:
            raise RecipeError(
                f"{file}: lines {first} and {number} give the label {label!r} another {column} each; a {column} is of "
                "the product, so write one, or leave it empty in the other rows"
            )
        if value:
            said[label] = (first, value)
    return {label: value for label, (_, value) in said.items()}
