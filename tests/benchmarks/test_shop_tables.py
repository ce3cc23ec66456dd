from __future__ import annotations

from typing import Any

from benchmarks.shop_tables import lost_text, narrow_shop_rows, shop_rows, shop_section, shown


def figure(value: float, n: int = 40) -> dict[str, float]:
    return {"value": value, "low": value - 0.125, "high": value + 0.125, "n": n}


def report(teacher: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """As much of a report as the table reads."""
    cells = [
        {"model": who, "target": "ov:cpu", "main": True, "accuracy": accuracy}
        for who, accuracy in (("teacher", teacher), ("student", student))
    ]
    return {"targets": ["ov:cpu"], "cells": cells}


def test_teacher_student_and_what_was_lost() -> None:
    teacher = {"shop": {"coarse.accuracy": figure(0.75), "unknown.auroc": figure(0.875)}}
    student = {
        "shop": {"coarse.accuracy": figure(0.5), "unknown.auroc": figure(0.75), "unknown.refused": figure(0.25, 30)},
        "shop_drop": {"coarse.accuracy": figure(25.0), "unknown.auroc": figure(0.125)},
    }
    whole = report(teacher, student)
    assert shop_rows(whole) == [
        ("figure", "target", "n", "teacher", "student", "lost"),
        (
            *("coarse classes right", "ov:cpu", "40"),
            *("75.00 % [62.50, 87.50]", "50.00 % [37.50, 62.50]", "25.00 [24.88, 25.12]"),
        ),
        (
            *("none of these, AUROC", "ov:cpu", "40"),
            *("0.875 [0.750, 1.000]", "0.750 [0.625, 0.875]", "0.125 [0.000, 0.250]"),
        ),
        ("left-out photos refused", "ov:cpu", "30", "", "25.00 % [12.50, 37.50]", ""),
    ]
    assert narrow_shop_rows(whole)[1] == (
        "coarse classes right\nov:cpu, n=40",
        "75.00 %\n[62.50, 87.50]",
        "50.00 %\n[37.50, 62.50]",
        "25.00\n[24.88, 25.12]",
    )
    (section,) = shop_section(whole)
    assert section.startswith("\n## Coarse classes, product search, none of these\n")
    assert "| coarse classes right | ov:cpu | 40 | 75.00 %" in section


def test_nothing_for_a_set_that_has_none() -> None:
    whole = report({}, {})
    assert len(shop_rows(whole)) == len(narrow_shop_rows(whole)) == 1
    assert shop_section(whole) == []
    alone = report({}, {"shop": {"coarse.accuracy": figure(0.5)}})
    alone["cells"] = alone["cells"][1:]
    assert shop_rows(alone)[1][3:] == ("", "50.00 % [37.50, 62.50]", "")


def test_units() -> None:
    assert shown("search.map", figure(0.5)) == "0.500 [0.375, 0.625]"
    assert shown("search.photo_to_text_r1", figure(0.5)) == "50.00 % [37.50, 62.50]"
    assert shown("search.map", None) == lost_text("search.map", None) == ""
    assert lost_text("search.photo_to_text_r1", figure(0.5)) == "0.50 [0.38, 0.62]"
