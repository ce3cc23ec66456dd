"""The table of coarse classes, product search and none of these, as rows of text, header first."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.figures import main_cells
from benchmarks.shop import IN_ONE, SHOP
from benchmarks.tables import Report, Row, grid, interval, lines, percent

EXPLAINED = """*Coarse classes*: the group with the highest sum of its labels' scores. *Photo to text*: is the photo's \
own product text among the first k of all? *Text to photos*: is one of the first k photos of that product? *None of \
these*: does the best cosine tell photos whose class is in the bank from photos whose class was left out of it, a \
tenth of the classes at a time? *Accepted*, *refused*: at the bundle's threshold; accepted with all classes in the bank.
Losses are in points, those of mAP and AUROC in 0..1.
"""


def shop_rows(report: Report) -> list[Row]:
    """Teacher and student on each target, and what was lost; only a header where the set has none of these figures."""
    rows: list[Row] = [("figure", "target", "n", "teacher", "student", "lost")]
    for target in report["targets"]:
        accuracy = {who: row["accuracy"] for who, row in main_cells(report, target).items()}
        for name, title in SHOP.items():
            found = {who: row["shop"][name] for who, row in accuracy.items() if name in row.get("shop", {})}
            if found:
                count = str(next(iter(found.values()))["n"])
                values = (shown(name, found.get(who)) for who in ("teacher", "student"))
                lost = accuracy.get("student", {}).get("shop_drop", {}).get(name)
                rows.append((title, target, count, *values, lost_text(name, lost)))
    return rows


def narrow_shop_rows(report: Report) -> list[Row]:
    """The same for 80 columns: several lines in a cell."""
    header, *rows = shop_rows(report)
    narrow: list[Row] = [(header[0], *header[3:])]
    for title, target, count, *values in rows:
        narrow.append((f"{title}\n{target}, n={count}", *map(lines, values)))
    return narrow


def shop_section(report: Report) -> list[str]:
    """The section of report.md; nothing for a set that has none of these figures."""
    rows = shop_rows(report)
    head = f"\n## Coarse classes, product search, none of these\n\n{EXPLAINED}\n"
    return [head + grid(rows)] if len(rows) > 1 else []


def shown(name: str, figure: Mapping[str, float] | None) -> str:
    """A figure of `SHOP` as tables write it: `97.00 % [95.00, 98.00]`, or of those `IN_ONE` `0.970 [0.950, 0.980]`."""
    if figure is None:
        return ""
    return interval(figure, 3) if name in IN_ONE else percent(figure)


def lost_text(name: str, figure: Mapping[str, float] | None) -> str:
    """What was lost of a figure of `SHOP`: `0.25 [-0.40, 0.90]` points, or nothing."""
    return "" if figure is None else interval(figure, 3 if name in IN_ONE else 2)
