"""study.md, study.json and study.png, and the table that the command prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.picture import arms, drawn, label_points
from compress.tables import Row, grid, interval, megabytes, percent

if TYPE_CHECKING:
    from rich.table import Table

VAL = ("row", "top-1 on val", "points won on val")
FILES = ("study.json", "study.md", "study.png")


def write_study(table: Mapping[str, Any], out: Path) -> str | None:
    """Write FILES into `out`; returns None, or why there is no picture. `table`: as compress/study.py makes it."""
    text, shown, picture = (out / name for name in FILES)
    text.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shown.write_text(markdown(table), encoding="utf-8")
    return drawn(lambda: _draw(table, picture), picture)


def markdown(table: Mapping[str, Any]) -> str:
    """study.md."""
    held = len(table["photos"]) - table["data"]["val"]
    also = (
        f"Beside that stands what it is with {held} train photos that no student of this study learnt from (its "
        "teacher did): it does not decide. "
        if held
        else ""
    )
    return (
        f"# {table['study']}\n\n{table['description']}\n\n"
        f"Recipe {table['recipe']}; students of one teacher ({table['teacher'][:16]}). Schedule of all rows: "
        f"{', '.join(f'`{text}`' for text in table['schedule']) or 'the recipe itself'}.\n\n"
        f"Top-1 is the mean over {_seeds(table['seeds'])}, on {table['data']['val']} validation photos, through the "
        f"SDK on {table['target']}. {also}"
        "Brackets hold 95 % intervals; a photo is drawn with its answers for all seeds. Each row is timed in turn with "
        "the teacher (single-stream, a frame in memory to a unit vector): the milliseconds are the teacher's median "
        "over the row's ratio. Seconds are those of the student's steps.\n\n"
        f"{grid(study_rows(table))}\n"
        f"On the front (no row is as fast and as accurate): {', '.join(_front(table)) or 'none'}.\n\n"
        f"## Settings\n\n{grid(_setting_rows(table))}"
    )


def rich_table(table: Mapping[str, Any]) -> Table:
    """The rows for a terminal of 80 columns: the main figures, intervals on lines of their own."""
    from rich.table import Table
    from rich.text import Text

    header, *rows = study_rows(table)
    places = [header.index(name) for name in (*VAL, "image graph", "one frame, ms")]
    shown = Table(*(header[place] for place in places), title=f"{table['study']}, {table['target']}", show_lines=True)
    for row in rows:
        shown.add_row(*(Text(row[place].replace(" [", "\n[").replace(" (", "\n(")) for place in places))
    return shown


def study_rows(table: Mapping[str, Any]) -> list[Row]:
    """The main table, header first."""
    computes = list(dict.fromkeys(name for row in table["rows"] for name in row.get("speedup", ())))
    held = len(table["photos"]) > table["data"]["val"]
    beside = ("top-1 with held-out photos", "points won with them") if held else ()
    head = (*VAL[:2], "of each seed", VAL[2], "over", *beside, "image graph", "all graphs", "one frame, ms")
    faster = tuple(f"times faster than the teacher in {name}" for name in computes)
    rows: list[Row] = [(*head, *faster, "seconds", "s per step", "images per s")]
    for row in table["rows"]:
        if "val_top1" not in row:
            rows.append((row["name"], row["students"][0]["why"], *("-",) * (len(rows[0]) - 2)))
            continue
        speed = [interval(row["speedup"][name], 2) if name in row["speedup"] else "-" for name in computes]
        rows.append(
            (
                f"{row['name']} ({row['precision']})",
                f"{percent(row['val_top1'])}{_refused(row)}",
                " / ".join(f"{100 * each:.1f}" for each in row["val_by_seed"]),
                interval(row["val_gain"], 2) if row["val_gain"] else "-",
                (row["against"] if row["val_gain"] else None) or "-",
                *(_with_held_out(row) if held else ()),
                megabytes(row["bytes"]["image"]),
                megabytes(sum(row["bytes"].values())),
                interval(row["ms"], 3),
                *speed,
                f"{row['seconds']:.0f}",
                *(f"{row[name]:.3g}" if name in row else "-" for name in ("step_seconds", "images_per_second")),
            )
        )
    return rows


def _with_held_out(row: Mapping[str, Any]) -> tuple[str, str]:
    """Top-1 and what was won with the held-out photos, which a final row may have learnt from."""
    if row["final"]:
        return "-", "-"
    return percent(row["top1"]), interval(row["gain"], 2) if row["gain"] else "-"


def _refused(row: Mapping[str, Any]) -> str:
    """How many of the row's students have no figures."""
    count = sum("correct" not in each for each in row["students"])
    return f" ({count} refused)" if count else ""


def _setting_rows(table: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [("row", "measured after", "settings beside the schedule")]
    for name, (until, settings) in table["settings"].items():
        rows.append((name, until, " ".join(f"`{text}`" for text in settings) or "-"))
    return rows


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _front(table: Mapping[str, Any]) -> list[str]:
    return [row["name"] for row in table["rows"] if row["front"]]


def _draw(table: Mapping[str, Any], path: Path) -> None:
    """A point per row with its intervals, a circle of int8 or a square of float, hollow where final; the front as
    steps."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 7), layout="constrained")
    axis.set_xscale("log")
    axis.grid(True, which="both", alpha=0.2)
    points = []
    for place, row in enumerate(each for each in table["rows"] if "val_top1" in each):
        x, y, colour = row["ms"]["value"], 100 * row["val_top1"]["value"], f"C{place % 10}"
        axis.errorbar(
            x,
            y,
            xerr=arms(row["ms"], 1),
            yerr=arms(row["val_top1"], 100),
            fmt="o" if row["precision"] == "int8" else "s",
            color=colour,
            markerfacecolor="white" if row["final"] else colour,
            markersize=8,
            elinewidth=1,
            alpha=0.85,
        )
        points.append((x, y, row["name"], colour))
    _steps(axis, [row for row in table["rows"] if row["front"]])
    label_points(axis, points)
    axis.set(
        xlabel="single-stream time of the image path, ms (log): left is faster",
        ylabel="zero-shot top-1 on validation photos, %",
    )
    text = f"{table['study']}: {_seeds(table['seeds'])}, {table['target']}, 95 % intervals; circles int8, squares float"
    figure.suptitle(text, parse_math=False)
    figure.savefig(path, dpi=120)


def _steps(axis: Any, front: Sequence[Mapping[str, Any]]) -> None:
    """The Pareto front: what accuracy can be had within a time."""
    if front:
        points = np.array(sorted((row["ms"]["value"], 100 * row["val_top1"]["value"]) for row in front))
        axis.step(points[:, 0], points[:, 1], where="post", color="grey", linestyle="--", linewidth=1, label="front")
        axis.legend(loc="lower right", frameon=False)
