"""What `benchmarks/peers.py` found, as rows of text, header first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peer_cells import Measured
from benchmarks.tables import Row, grid, interval, megabytes, percent


def time_rows(found: Measured, counts: Sequence[int]) -> list[Row]:
    """Milliseconds of a frame, what more labels cost, and how much slower than the first of ours."""
    first = found.rows[0]["name"]
    least, most = min(counts), max(counts)
    rows: list[Row] = [
        (
            "a frame in memory to probabilities, median ms",
            *(f"{count} labels" for count in counts),
            *((f"{most} over {least}",) if most > least else ()),
            *(f"over {first}, {count}" for count in counts),
        )
    ]
    for row in found.rows:
        times = (interval(row["ms"][str(count)], 1) for count in counts)
        growth = (f"{interval(row['growth'], 2)}x",) if most > least else ()
        slower = ("" if row["name"] == first else f"{interval(row['slower'][str(n)], 2)}x" for n in counts)
        rows.append((row["name"], *times, *growth, *slower))
    width = len(rows[0])
    rows += [(name, f"not measured: {why}", *[""] * (width - 2)) for name, why in found.skipped.items()]
    return rows


def memory_rows(found: Measured, counts: Sequence[int]) -> list[Row]:
    """Size on disk, and what fresh processes pay."""
    rows: list[Row] = [
        (
            "",
            "on disk",
            *(f"peak memory, {count} labels" for count in counts),
            *(f"load to first answer, {count} labels" for count in counts),
        )
    ]
    for row in found.rows:
        peak = (f"{row['fresh'][str(count)]['peak_mb']['value']:.0f} MB" for count in counts)
        load = (f"{row['fresh'][str(count)]['load_ms']['value'] / 1e3:.1f} s" for count in counts)
        rows.append((row["name"], megabytes(row["bytes"]), *peak, *load))
    return rows


def agreement_rows(found: Measured) -> list[Row]:
    """How often the best label is the same, and the largest difference of any probability (0..1)."""
    rows: list[Row] = [("ours", "and", "labels", "same best label", "frames", "largest difference of a probability")]
    for pair in found.agreement:
        same = (percent(pair["top1"]), str(pair["top1"]["n"]))
        rows.append((pair["ours"], pair["other"], str(pair["labels"]), *same, f"{pair['largest']:.2g}"))
    return rows


def page(found: Measured, counts: Sequence[int], facts: Mapping[str, Any], quick: bool, turns: int) -> str:
    """All of it in Markdown."""
    versions = {name: number for each in found.versions.values() for name, number in each.items()}
    parts = [
        grid(time_rows(found, counts)),
        grid(memory_rows(found, counts)),
        grid(agreement_rows(found)),
        f"{facts['cpu']}, {facts['cores']} cores; {turns} turns"
        + (", a quick look, not for a decision" if quick else "")
        + f". With {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}.\n",
    ]
    return "\n".join(parts)
