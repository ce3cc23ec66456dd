"""The tables of a report about its steps: what each cost and measured, how fast it trained, which quantizers were
tried, and whether a teacher that is a checkpoint equals it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.tables import Row
from compress.checkpoints import LEAST, MOST

# quantize.<tower>.<quantizer>.<figure>: dozens of numbers, which have a table of their own.
CANDIDATE = re.compile(r"quantize\.(?P<tower>\w+)\.(?P<quantizer>\w+)\.(?P<figure>distance|slowness|ms\..+)")
# Of `compress.parity.prove`, which have one too.
PROOF = "teach.parity."


def step_rows(report: dict[str, Any]) -> list[Row]:
    """What each step cost and measured; a figure with an interval is one entry, those of other tables are left out."""
    rows: list[Row] = [("step", "seconds", "measured")]
    for step, seconds in report["seconds"].items():
        prefix = f"{step}."
        found = {
            name.removeprefix(prefix): value
            for name, value in report["steps"].items()
            if name.startswith(prefix) and not CANDIDATE.fullmatch(name) and not name.startswith(PROOF)
        }
        if step == "embed":
            found |= report.get("embedded", {})
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


def proof_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """What `compress.parity.prove` measured, under names that begin with PROOF; only a header without it."""
    found = {name.removeprefix(PROOF): value for name, value in metrics.items() if name.startswith(PROOF)}
    rows: list[Row] = [("against the checkpoint's own", "on", "measured", "wanted")]
    if found:
        images, read = f"{found['images']} images", f"{found['read']} texts"
        near, text = (
            f"at least {found[f'{kind}_min']:.7f}, mean {found[f'{kind}_mean']:.7f}"
            for kind in ("cosine", "text_cosine")
        )
        error = f"differ by {found['score_error']:.1e} at most"
        rows += [
            ("token ids", f"{found['texts']} texts", f"{found['tokens']:.2%} equal", "all"),
            ("vectors of images", images, f"cosine {near}", f"{LEAST}"),
            ("vectors of texts", read, f"cosine {text}", f"{LEAST}"),
            ("probabilities", f"{images}, {read}", error, f"{MOST}"),
        ]
    if "default_error" in found:
        error = f"differ by {found['default_error']:.1e} at most"
        rows.append(("probabilities, its library's default resize", f"{images}, {read}", error, "not asked"))
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
