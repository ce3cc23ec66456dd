"""The tables of a report about its steps: what each cost and measured, how fast it trained, which quantizers were
tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.tables import Row

# quantize.<tower>.<quantizer>.<figure>: dozens of numbers, which have a table of their own.
CANDIDATE = re.compile(r"quantize\.(?P<tower>\w+)\.(?P<quantizer>\w+)\.(?P<figure>distance|slowness|ms\..+)")


def step_rows(report: dict[str, Any]) -> list[Row]:
    """What each step cost and measured; a figure with an interval is one entry, quantizers' figures are left out."""
    rows: list[Row] = [("step", "seconds", "measured")]
    for step, seconds in report["seconds"].items():
        prefix = f"{step}."
        found = {
            name.removeprefix(prefix): value
            for name, value in report["steps"].items()
            if name.startswith(prefix) and not CANDIDATE.fullmatch(name)
        }
        bounds = {f"{name}_{end}" for name in found for end in ("low", "high") if f"{name}_low" in found}
        rows.append((step, f"{seconds:.0f}", ", ".join(_entry(name, found) for name in found if name not in bounds)))
    return rows


def training_rows(report: dict[str, Any]) -> list[Row]:
    """How fast each training was; only a header if nothing was trained."""
    rows: list[Row] = [("training", "on", "steps", "batch", "seconds per step", "images per second")]
    for name, pace in report.get("training", {}).items():
        speed = (f"{pace['seconds_per_step']:.3g}", f"{pace['images_per_second']:.4g}")
        rows.append((name, pace["device"], str(pace["steps"]), str(pace["batch"]), *speed))
    return rows


def candidate_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """What each quantizer's graph of each tower measured, and which one was chosen; only a header if none did."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in metrics.items():
        if match := CANDIDATE.fullmatch(name):
            found.setdefault((match["tower"], match["quantizer"]), {})[match["figure"]] = value
    timed = sorted({figure for figures in found.values() for figure in figures if figure.startswith("ms.")})
    rows: list[Row] = [
        ("tower", "quantizer", "chosen", "distance", *(f"{name.removeprefix('ms.')} ms" for name in timed))
    ]
    for (tower, quantizer), figures in found.items():
        chosen = "yes" if metrics.get(f"quantize.{tower}.chosen") == quantizer else ""
        cells = [_plain_number(figures.get(name)) for name in ("distance", *timed)]
        rows.append((tower, quantizer, chosen, *cells))
    return rows


def _entry(name: str, found: Mapping[str, Any]) -> str:
    """`top1 0.98`, or with the bounds beside it `drop 0.25 [-0.4, 0.9]`."""
    text = f"{name} {_plain_number(found[name])}"
    if f"{name}_low" in found and f"{name}_high" in found:
        text += f" [{_plain_number(found[f'{name}_low'])}, {_plain_number(found[f'{name}_high'])}]"
    return text


def _plain_number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
