"""What cross-validation comes to: accuracy over all folds, and what each row won."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import clustered_drop, wilson
from compress.study_plan import Study
from compress.tables import Row, grid, interval, percent


def table_of(study: Study, recipe: str, done: dict[str, list[dict[str, Any]]], folds: int) -> dict[str, Any]:
    """What the rows come to, as JSON. `done`: row -> the figures of its folds, in order; a row is compared with the one
    before it, or that it is on, over the folds that both have."""
    rows = []
    for row in study.rows:
        mine, other = done[row.name], study.compared(row)
        if not mine:
            continue
        right = _bools(mine)
        theirs = done[other.name][: len(mine)] if other else []
        gain = None
        if theirs:
            after, before = _bools(mine[: len(theirs)]), _bools(theirs)
            gain = dataclasses.asdict(clustered_drop(after, before, np.arange(len(after))))
        rows.append(
            {
                "name": row.name,
                "against": other.name if other else None,
                "settings": list(row.set),
                "top1": dataclasses.asdict(wilson(right)),
                "by_fold": [float(_bools([each]).mean()) for each in mine],
                "gain": gain,
                "seconds": sum(each["seconds"] for each in mine),
            }
        )
    about = {"study": study.name, "description": study.description, "recipe": recipe}
    return {**about, "schedule": list(study.set), "folds": folds, "rows": rows}


def markdown(table: dict[str, Any]) -> str:
    """cross_validation.md."""
    lines: list[Row] = [("row", "top-1", "of each fold", "points won", "over", "seconds", "settings")]
    for row in table["rows"]:
        folds = " / ".join(f"{100 * each:.1f}" for each in row["by_fold"])
        gain = (interval(row["gain"], 2), row["against"]) if row["gain"] else ("-", "-")
        settings = " ".join(f"`{text}`" for text in row["settings"]) or "-"
        lines.append(
            (
                row["name"],
                f"{percent(row['top1'])} (n={row['top1']['n']})",
                folds,
                *gain,
                f"{row['seconds']:.0f}",
                settings,
            )
        )
    return (
        f"# {table['study']}\n\n{table['description']}\n\nTeachers of the recipe {table['recipe']}, each trained on "
        f"{table['folds'] - 1} of {table['folds']} parts of the train and validation photos and measured in torch on "
        "the part that is left; a part is a stretch of each class's photos in the order of their names. The test split "
        "is not read. Schedule of all rows: "
        f"{', '.join(f'`{text}`' for text in table['schedule']) or 'the recipe itself'}. Brackets hold 95 % intervals "
        "over photos; photos of one scene are alike, so in truth they are wider. A row has its own settings and those "
        f"of the row that it is on.\n\n{grid(lines)}"
    )


def _bools(records: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
    return np.array([letter == "1" for each in records for letter in each["correct"]])
