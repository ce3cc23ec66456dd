"""What the report of a set of photos has besides: classes that lost, coarse classes, product search, none of these."""

from __future__ import annotations

from typing import Any

from benchmarks.class_losses import ALPHA, significant
from benchmarks.shop import IN_ONE, SHOP
from benchmarks.shop_tables import EXPLAINED, lost_text, shown
from benchmarks.tables import Row, grid

WORST = 10  # classes that the report lists


def shop_main_rows(teacher: dict[str, Any], student: dict[str, Any]) -> list[Row]:
    """Rows of the main table: each figure of `SHOP` that one of two rows of `accuracy` has."""
    rows: list[Row] = []
    for name, title in SHOP.items():
        both = [cell.get("shop", {}).get(name) for cell in (teacher, student)]
        if any(both):
            count = next(figure["n"] for figure in both if figure)
            change = gained(name, student.get("shop_drop", {}).get(name))
            rows.append((f"{title} (n={count})", shown(name, both[0]), shown(name, both[1]), change))
    return rows


def gained(name: str, drop: dict[str, float] | None) -> str:
    """A loss seen as a change: `-0.25 points [-0.90, +0.40]`; of those `IN_ONE` without the unit; nothing for None."""
    if drop is None:
        return ""
    digits, unit = (3, "") if name in IN_ONE else (2, " points")
    value, low, high = (f"{0 - drop[key]:+.{digits}f}" for key in ("value", "high", "low"))
    return f"{value}{unit} [{low}, {high}]"


def class_main_row(report: dict[str, Any]) -> list[Row]:
    """The main table's line on classes; none for a report without them."""
    classes = report.get("classes", [])
    if not classes:
        return []
    count = len(_significant(classes))
    most = max(each["lost"] - each["won"] for each in classes)
    change = f"most lost by one: {most} photos" if most > 0 else "none lost a photo"
    return [("classes that lost significantly", "", f"{count} of {len(classes)}", change)]


def _significant(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in classes if significant(each["p"], each["lost"], each["won"])]


def class_rows(report: dict[str, Any]) -> list[Row]:
    """The `WORST` classes that lost a photo more than they won; only a header if none did."""
    rows: list[Row] = [("class", "photos", "worse", "better", "points lost", "p (exact McNemar, Holm)")]
    for each in report.get("classes", [])[:WORST]:
        if each["lost"] > each["won"]:
            counts = (str(each[name]) for name in ("n", "lost", "won"))
            rows.append((each["name"], *counts, f"{each['points']:.1f}", f"{each['p']:.2g}"))
    return rows


def shop_rows(report: dict[str, Any]) -> list[Row]:
    """Model, precision and engine, and a column for each figure of `SHOP` that any has; only a header if none has."""
    rows = [row for row in report["accuracy"] if "shop" in row]
    names = [name for name in SHOP if any(name in row["shop"] for row in rows)]
    found: list[Row] = [("model", "precision", "target", *(word for name in names for word in (SHOP[name], "lost")))]
    for row in rows:
        cells = []
        for name in names:
            drop = row.get("shop_drop", {}).get(name)
            cells += [shown(name, row["shop"].get(name)), lost_text(name, drop)]
        found.append((row["model"], row["precision"], row["target"], *cells))
    return found


def photo_sections(report: dict[str, Any]) -> list[str]:
    """Sections of report.md; none for a set of other kind."""
    parts = []
    shop, classes = shop_rows(report), report.get("classes", [])
    if len(shop) > 1:
        parts.append(f"\n## Coarse classes, product search, none of these\n\n{EXPLAINED}\n{grid(shop)}")
    if classes:
        worst = class_rows(report)
        names = ", ".join(each["name"] for each in _significant(classes)) or "none"
        parts.append(
            f"\n## Which classes lost\n\nStudent int8 against teacher fp32, photo by photo, an exact McNemar test for "
            f"each of {len(classes)} classes, p adjusted for all of them (Holm). Lost significantly (p < {ALPHA:g}): "
            f"{names}.\n" + (f"\nThose that lost most:\n\n{grid(worst)}" if len(worst) > 1 else "")
        )
    return parts
