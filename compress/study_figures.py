"""What the rows of a study come to: accuracy over photos and seeds, what a row gained, how fast it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import clustered, clustered_drop
from compress.study_plan import Study
from sdk.manifest import Figure

Records = Sequence[Mapping[str, Any]]  # of one row's students, each with its seed


def summary(study: Study, measured: Mapping[str, Records], val: int) -> list[dict[str, Any]]:
    """A table of figures for each row of the study that has been measured, as JSON; `measured`: row's name -> its
    students. `val`: how many of their photos, the first ones, are of the validation split: `val_top1` and `val_gain`
    are on those alone, and decide; held-out train photos, which the teacher knows, are in `top1` and `gain`. `ms` are
    milliseconds as if all had been timed at one moment: the teacher's median, over the paired ratio.
    """
    timed = [each["speed"][0]["teacher_ms"]["value"] for records in measured.values() for each in _good(records)]
    teacher_ms = float(np.median(timed)) if timed else 0.0
    rows = []
    for row in study.rows:
        records = measured.get(row.name, ())
        if not records:
            continue
        other = study.compared(row)
        about = {"name": row.name, "final": row.final, "against": other.name if other else None}
        figures = _figures(_good(records), teacher_ms, val)
        before = measured.get(other.name, ()) if other else ()
        gains = {"val_gain": as_json(_gain(before, records, val)), "gain": as_json(_gain(before, records))}
        rows.append({**about, **figures, **gains, "students": [dict(each) for each in records]})
    return [{**row, "front": on_front} for row, on_front in zip(rows, pareto(rows), strict=True)]


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each row is on the front: no other one is as fast and as accurate on validation photos, and better in one
    of both. Final rows, trained on another schedule, take no part."""
    points = [
        None if row["final"] or "val_top1" not in row else (row["ms"]["value"], -row["val_top1"]["value"])
        for row in rows
    ]
    known = [point for point in points if point is not None]
    return [
        point is not None
        and not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in known)
        for point in points
    ]


def as_json(figure: Figure | None) -> dict[str, float] | None:
    """The figure's fields."""
    return None if figure is None else dataclasses.asdict(figure)


def _good(records: Records) -> list[Mapping[str, Any]]:
    """Those that have figures: a refused student has none."""
    return [each for each in records if "correct" in each]


def _figures(good: Sequence[Mapping[str, Any]], teacher_ms: float, val: int) -> dict[str, Any]:
    if not good:
        return {}
    right = np.stack([_bools(each) for each in good])
    decides = right[:, :val]
    pairs = [pair for each in good for pair in each["speed"]]
    computes = dict.fromkeys(pair["teacher_compute"] for pair in pairs)  # f32 first
    faster = {
        name: _widest([pair["speedup"] for pair in pairs if pair["teacher_compute"] == name]) for name in computes
    }
    f32 = next(iter(faster.values()))
    paces = {name: [each[name] for each in good if name in each] for name in ("step_seconds", "images_per_second")}
    return {
        "val_top1": as_json(clustered(decides.ravel(), _photos(decides))),
        "val_by_seed": [float(each.mean()) for each in decides],
        "top1": as_json(clustered(right.ravel(), _photos(right))),
        "precision": good[0]["precision"],
        "compute": good[0]["compute"],
        "bytes": dict(good[0]["bytes"]),
        "ms": {
            "value": teacher_ms / f32["value"],
            "low": teacher_ms / f32["high"],
            "high": teacher_ms / f32["low"],
            "n": f32["n"],
        },
        "speedup": faster,
        "seconds": float(np.mean([sum(each["seconds"].values()) for each in good])),
        **{name: float(np.mean(values)) for name, values in paces.items() if values},
    }


def _gain(before: Records, after: Records, most: int | None = None) -> Figure | None:
    """Points (0..100) of top-1 won, students of the same seed in pairs, over the photos that both were measured on, at
    `most` so many of the first; photos are drawn together over seeds. A final student is compared with those of all
    seeds."""
    one, two = ({each.get("seed"): _bools(each) for each in _good(records)} for records in (before, after))
    if None in two:
        pairs = [(each, two[None]) for each in one.values()]
    else:
        pairs = [(one[seed], two[seed]) for seed in two if seed in one]
    if not pairs:
        return None
    n = min(len(each) for pair in pairs for each in pair)
    lost, won = (np.stack([pair[side][:n][:most] for pair in pairs]) for side in (0, 1))
    return clustered_drop(won.ravel(), lost.ravel(), _photos(lost))


def _photos(right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The photo of each sample of (seeds, photos), raveled."""
    return np.tile(np.arange(right.shape[1]), len(right))


def _bools(record: Mapping[str, Any]) -> NDArray[np.bool_]:
    return np.array([letter == "1" for letter in record["correct"]])


def _widest(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of figures, with an interval that holds all of theirs."""
    return {
        "value": float(np.median([each["value"] for each in figures])),
        "low": min(each["low"] for each in figures),
        "high": max(each["high"] for each in figures),
        "n": sum(each["n"] for each in figures),
    }
