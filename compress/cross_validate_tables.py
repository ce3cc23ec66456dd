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
    before it, or that it is on, over the folds that both have. `val_top1` and `val_gain` are over those photos alone
    that the data set has for validation."""
    rows = []
    for row in study.rows:
        mine, other = done[row.name], study.compared(row)
        if not mine:
            continue
        both = min(len(mine), len(done[other.name])) if other else 0
        right, own = _bools(mine, "correct"), _bools(mine, "val")
        after, of_val = _bools(mine[:both], "correct"), _bools(mine[:both], "val")
        before = _bools(done[other.name][:both], "correct") if other else after
        rows.append(
            {
                "name": row.name,
                "against": other.name if both and other else None,
                "settings": list(row.set),
                "top1": dataclasses.asdict(wilson(right)),
                "by_fold": [float(_bools([each], "correct").mean()) for each in mine],
                "gain": _gain(after, before),
                "val_top1": dataclasses.asdict(wilson(right[own])) if own.any() else None,
                "val_gain": _gain(after[of_val], before[of_val]),
                "seconds": sum(each["seconds"] for each in mine),
            }
        )
    about = {"study": study.name, "description": study.description, "recipe": recipe}
    return {**about, "schedule": list(study.set), "folds": folds, "rows": rows}


def markdown(table: dict[str, Any]) -> str:
    """cross_validation.md."""
    lines: list[Row] = [
        (
            "row",
            "top-1",
            "of each fold",
            "points won",
            "top-1 of val's own",
            "points won there",
            "over",
            "seconds",
            "settings",
        )
    ]
    for row in table["rows"]:
        lines.append(
            (
                row["name"],
                _share(row["top1"]),
                " / ".join(f"{100 * each:.1f}" for each in row["by_fold"]),
                interval(row["gain"], 2) if row["against"] else "-",
                _share(row["val_top1"]),
                interval(row["val_gain"], 2) if row["against"] and row["val_gain"] else "-",
                row["against"] or "-",
                f"{row['seconds']:.0f}",
                " ".join(f"`{text}`" for text in row["settings"]) or "-",
            )
        )
    return (
        f"# {table['study']}\n\n{table['description']}\n\nTeachers of the recipe {table['recipe']}, each trained on "
        f"{table['folds'] - 1} of {table['folds']} parts of the train and validation photos and measured in torch on "
        "the part that is left; a part is a stretch of each class's photos in the order of their names, of each split, "
        "and photos that show the same stay together. The test split is not read. *Val's own* are the photos that the "
        "data set has for validation: where train photos are of fewer "
        "places, they tell more of how a teacher does elsewhere. Schedule of all rows: "
        f"{', '.join(f'`{text}`' for text in table['schedule']) or 'the recipe itself'}. Brackets hold 95 % intervals "
        "over photos; photos of one scene are alike, so in truth they are wider. A row has its own settings and those "
        f"of the row that it is on.\n\n{grid(lines)}"
    )


def _share(top1: dict[str, Any] | None) -> str:
    return f"{percent(top1)} (n={top1['n']})" if top1 else "-"


def _gain(after: NDArray[np.bool_], before: NDArray[np.bool_]) -> dict[str, Any] | None:
    return dataclasses.asdict(clustered_drop(after, before, np.arange(len(after)))) if len(after) else None


def _bools(records: Sequence[dict[str, Any]], name: str) -> NDArray[np.bool_]:
    return np.array([letter == "1" for each in records for letter in each[name]], bool)
