"""A CSV with the columns image and label, and if wanted text, group and split; paths are relative to the CSV.

`text` describes a product and `group` is the class that it belongs to: one each per label, given in one of its rows or
in all. Other columns are passed by. Cells are parted by commas, semicolons or tabs, as spreadsheets of different
countries write them.
"""

import csv
import io
from pathlib import Path

from compress.layouts import SPLITS, Listing, Product, inside, read_text
from runtimes import RecipeError

WANTS = "a .csv file (or a folder with just one) with the columns image and label, and if wanted text, group and split"
NEEDED = {"image", "label"}

Row = tuple[int, dict[str, str]]  # the number of its line, and its cells by column


def read(root: Path) -> Listing | None:
    """Every row's photo. Raises RecipeError for a list without the columns, or without one right row."""
    files = [root] if root.suffix.lower() == ".csv" else lists(root)
    if not files or not files[0].is_file():
        return None
    if len(files) > 1:
        raise RecipeError(
            f"{root} has more than one list of photos: {', '.join(file.name for file in files)}; give one of them as "
            "data.root, or move the others away"
        )
    file, mistakes = files[0], list[str]()
    rows = _rows(file, mistakes)
    known = {column: _of_labels(rows, column, file, mistakes) for column in ("text", "group")}
    images: dict[Path, Row] = {}
    for number, cells in rows:
        try:
            path = inside(file.parent, cells["image"], f"{file}, line {number}")
        except RecipeError as error:
            mistakes.append(str(error))
            continue
        first, _ = images.setdefault(path, (number, cells))
        if first != number:
            mistakes.append(f"{file}: lines {first} and {number} name the same photo; leave one of them")
    names = sorted({cells["label"] for _, cells in images.values()})
    groups = [known["group"].get(name, "") for name in names]
    texts = [" ".join(known["text"].get(name, "").split()) for name in names]
    return Listing(
        name="",
        root=file.parent,
        products=tuple(Product(n, n, text, group, group) for n, text, group in zip(names, texts, groups, strict=True)),
        images=tuple(images),
        labels=tuple(names.index(cells["label"]) for _, cells in images.values()),
        splits=tuple(cells.get("split", "") for _, cells in images.values()),
        mistakes=tuple(mistakes),
    )


def lists(folder: Path) -> list[Path]:
    """The .csv files in a folder that list photos: those with a column image or label. Others are something else."""
    return [file for file in sorted(folder.glob("*.csv")) if file.is_file() and NEEDED & set(_header(_first(file)))]


def _first(file: Path) -> str:
    """The first line, whatever it is; "" if it cannot be read."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as text:
            return text.readline()
    except OSError:
        return ""


def _delimiter(line: str) -> str:
    """That of , ; and tab by which the first line has most of the columns that are needed."""
    return max(",;\t", key=lambda each: len(NEEDED & set(_columns(line, each))))


def _header(line: str) -> list[str]:
    return _columns(line, _delimiter(line))


def _columns(line: str, delimiter: str) -> list[str]:
    try:
        return [column.strip().lower() for column in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a cell without end
        return []


def _rows(file: Path, mistakes: list[str]) -> list[Row]:
    """The rows that can be read, with their cells stripped; of the others `mistakes` gets a line each."""
    text = read_text(file, str(file))
    first = text.partition("\n")[0]
    header = _header(first)
    if missing := [column for column in ("image", "label") if column not in header]:
        raise RecipeError(
            f"{file} has no column {missing[0]!r}, but {', '.join(header) or 'no columns'}; name it in the first line"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first), strict=True)
    next(reader)
    rows: list[Row] = []
    while True:
        try:
            row = next(reader)
            if any(row):
                rows.append((reader.line_num, _cells(header, row, file, reader.line_num)))
        except StopIteration:
            break
        except csv.Error as error:
            mistakes.append(f"{file}, line {reader.line_num}: {error}; save it as CSV again")
        except RecipeError as error:
            mistakes.append(str(error))
    if not rows:
        raise RecipeError(mistakes[0] if mistakes else f"{file} names no photos; add a row for each")
    return rows


def _cells(header: list[str], row: list[str], file: Path, number: int) -> dict[str, str]:
    if len(row) != len(header):
        raise RecipeError(
            f"{file}, line {number}: wanted {len(header)} cells as in the first line, got {len(row)}; put cells that "
            "hold a comma or semicolon in quotes"
        )
    cells = {column: cell.strip() for column, cell in zip(header, row, strict=True)}
    if not cells["label"]:
        raise RecipeError(f"{file}, line {number}: wanted a label, got none; fill it in, or leave the row out")
    split = cells.get("split", "")
    if split.lower() not in ("", *SPLITS):
        raise RecipeError(f"{file}, line {number}: split must be train, val, test or empty, got {split!r}")
    return {**cells, "split": split.lower()}


def _of_labels(rows: list[Row], column: str, file: Path, mistakes: list[str]) -> dict[str, str]:
    """What the rows say in `column`, by label: what the first one says."""
    said: dict[str, tuple[int, str]] = {}
    for number, cells in rows:
        label, value = cells["label"], cells.get(column, "")
        first, before = said.get(label, (number, value))
        if value and value != before:
            mistakes.append(
                f"{file}: lines {first} and {number} give the label {label!r} another {column} each; a {column} is of "
                "the product, so write one, or leave it empty in the other rows"
            )
        elif value:
            said[label] = (first, value)
    return {label: value for label, (_, value) in said.items()}
