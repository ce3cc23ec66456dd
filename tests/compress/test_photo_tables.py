from __future__ import annotations

from typing import Any

from compress.photo_tables import class_main_row, class_rows, gained, photo_sections, shop_main_rows, shop_rows


def figure(value: float, n: int = 40) -> dict[str, float]:
    return {"value": value, "low": value - 0.125, "high": value + 0.125, "n": n}


TEACHER: dict[str, Any] = {
    "model": "teacher",
    "precision": "fp32",
    "target": "ov:cpu",
    "shop": {"coarse.accuracy": figure(0.75), "search.map": figure(0.5)},
}
STUDENT: dict[str, Any] = {
    "model": "student",
    "precision": "int8",
    "target": "ov:cpu",
    "shop": {"coarse.accuracy": figure(0.5), "search.map": figure(0.25), "unknown.refused": figure(0.5, 30)},
    "shop_drop": {"coarse.accuracy": figure(25.0), "search.map": figure(0.25)},
}


def loss(name: str, lost: int, won: int, p: float) -> dict[str, Any]:
    return {"kind": "class", "name": name, "n": 20, "points": 5.0 * (lost - won), "lost": lost, "won": won, "p": p}


def test_rows_of_the_main_table() -> None:
    assert shop_main_rows(TEACHER, STUDENT) == [
        (
            "coarse classes right (n=40)",
            *("75.00 % [62.50, 87.50]", "50.00 % [37.50, 62.50]", "-25.00 points [-25.12, -24.88]"),
        ),
        (
            "text to photos, mAP (n=40)",
            *("0.500 [0.375, 0.625]", "0.250 [0.125, 0.375]", "-0.250 [-0.375, -0.125]"),
        ),
        ("left-out photos refused (n=30)", "", "50.00 % [37.50, 62.50]", ""),
    ]
    bare = {key: TEACHER[key] for key in ("model", "precision", "target")}
    assert shop_main_rows(bare, bare) == []


def test_a_gain_has_a_plus() -> None:
    assert gained("coarse.accuracy", {"value": -1.0, "low": -2.0, "high": 0.0}) == "+1.00 points [+0.00, +2.00]"
    assert gained("search.map", None) == ""


def test_the_line_on_classes() -> None:
    assert class_main_row({}) == []
    classes = [loss("leek", 9, 1, 0.01), loss("kale", 4, 1, 0.4), loss("milk", 0, 6, 0.03)]
    name = "classes that lost significantly"
    assert class_main_row({"classes": classes}) == [(name, "", "1 of 3", "most lost by one: 8 photos")]
    assert class_main_row({"classes": classes[2:]}) == [(name, "", "0 of 1", "none lost a photo")]


def test_the_ten_worst_classes() -> None:
    classes = [loss(f"class {index}", 14 - index, 1, 0.001 * (index + 1)) for index in range(13)]
    rows = class_rows({"classes": classes})
    assert len(rows) == 11
    assert rows[1] == ("class 0", "20", "14", "1", "65.0", "0.001")
    assert class_rows({"classes": [loss("milk", 1, 1, 1.0)]}) == rows[:1]


def test_columns_for_what_any_engine_has() -> None:
    header, teacher, student = shop_rows({"accuracy": [TEACHER, STUDENT]})
    assert header[3:] == (
        *("coarse classes right", "lost", "text to photos, mAP", "lost", "left-out photos refused", "lost"),
    )
    assert teacher[3:5] == ("75.00 % [62.50, 87.50]", "")
    assert student[-4:] == ("0.250 [0.125, 0.375]", "0.250 [0.125, 0.375]", "50.00 % [37.50, 62.50]", "")


def test_sections_of_the_report() -> None:
    assert photo_sections({"accuracy": [{"model": "teacher"}]}) == []
    classes = [loss("leek", 9, 1, 0.01), loss("milk", 0, 6, 0.03)]
    shop, lost = photo_sections({"accuracy": [TEACHER, STUDENT], "classes": classes})
    assert shop.startswith("\n## Coarse classes, product search, none of these\n\n*Coarse classes*: ")
    assert "| student | int8 | ov:cpu | 50.00 %" in shop
    assert "each of 2 classes, p adjusted for all of them (Holm). Lost significantly (p < 0.05): leek." in lost
    assert "| leek | 20 | 9 | 1 | 40.0 | 0.01 |" in lost
    assert "milk" not in lost
    (none,) = photo_sections({"accuracy": [], "classes": classes[1:]})
    assert none.endswith("Lost significantly (p < 0.05): none.\n")
