"""The figures of a report by name and target: what bars are held against, and what the first table shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.require import NAMES
from benchmarks.shop import IN_ONE, drop_name


def figures(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Name (of `require.NAMES`) -> target -> value, from each target's main cells. What was not measured is missing."""
    found: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for row in report["cells"]:
        if row["main"]:
            for name, value in _of_cell(row).items():
                found[f"{row['model']}.{name}"][row["target"]] = value
    for pair in report["speedups"]:
        found[f"student.speedup.{pair['against']}"][pair["target"]] = pair["speedup"]["value"]
    for cost in report["layer"]:
        for name in ("embed_images_us", "labels_us"):
            found[f"layer.{name}"][cost["target"]] = cost[name]["value"]
    return found


def main_cells(report: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Model -> row of the main cell on a target."""
    return {row["model"]: row for row in report["cells"] if row["main"] and row["target"] == target}


def _of_cell(row: Mapping[str, Any]) -> dict[str, float]:
    accuracy, fresh, offline = row["accuracy"], row["fresh"], row["offline"]
    found = {
        "zero_shot.top1": 100 * accuracy["top1"]["value"],
        "map": accuracy["map"]["value"],
        "throughput": offline["images_per_second"][offline["best"]]["value"],
        "load_ms": fresh["load_ms"]["value"],
        "first_call_ms": fresh["first_call_ms"]["value"],
        "memory_mb": fresh["peak_mb"]["value"],
        "bytes": float(row["bytes"]),
    }
    found |= {f"latency.{name}_ms": figure["value"] for name, figure in row["single_stream_ms"].items()}
    if "answers" in accuracy:
        found["answers.accuracy"] = 100 * accuracy["answers"]["value"]
    renamed = {"top1_drop": "zero_shot.drop", "answers_drop": "answers.drop", "map_drop": "map_drop"}
    found |= {name: accuracy[key]["value"] for key, name in renamed.items() if key in accuracy}
    if "class_lost" in accuracy:
        found["class_lost"] = float(accuracy["class_lost"])
    shop = accuracy.get("shop", {})
    found |= {name: figure["value"] * (1 if name in IN_ONE else 100) for name, figure in shop.items()}
    return found | {drop_name(name): figure["value"] for name, figure in accuracy.get("shop_drop", {}).items()}
