"""What rows come to, in numbers worked out by hand; the tables and the picture of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from compress.study_figures import pareto, summary
from compress.study_plan import Row, Study
from compress.study_tables import FILES, markdown, rich_table, write_study

STUDY = Study(
    name="made up",
    recipe="grocery",
    description="What it is for.",
    seeds=2,
    set=("distill.epochs=4",),
    rows=(Row("plain"), Row("more", set=("distill.label=1",)), Row("int8 [q]", on="more"), Row("full", final=True)),
)


def student(correct: str, ratio: float, precision: str = "fp32", **more: Any) -> dict[str, Any]:
    def about(value: float) -> dict[str, float]:
        return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "n": 50}

    speed = [
        {"teacher_compute": name, "teacher_ms": about(ms), "student_ms": about(ms / ratio), "speedup": about(ratio)}
        for name, ms in (("f32", 8.0), ("bf16", 4.0))
    ]
    figures = {"correct": correct, "precision": precision, "compute": "f32", "speed": speed}
    return {"n": len(correct), **figures, "bytes": {"image": 3e6, "text": 1e6}, "seconds": {"prune": 2.0}, **more}


MEASURED: dict[str, list[dict[str, Any]]] = {
    "plain": [student("1100", 2.0, seed=0), student("1000", 4.0, seed=1)],
    "more": [student("1110", 4.0, seed=0, step_seconds=0.5, images_per_second=64.0), student("1110", 4.0, seed=1)],
    "int8 [q]": [student("1110", 8.0, "int8", seed=0), {"seed": 1, "why": "too much lost"}],
    "full": [student("11", 8.0, "int8")],
}


def table() -> dict[str, Any]:
    return {
        "study": "made up",
        "description": "What it is for.",
        "recipe": "grocery",
        "schedule": ["distill.epochs=4"],
        "seeds": 2,
        "settings": {"plain": ("distill", []), "more": ("distill", ["distill.label=1"])},
        "teacher": "0123456789abcdef0",
        "data": {"name": "shop", "fingerprint": "f", "val": 2},
        "photos": ["a", "b", "c", "d"],
        "target": "ov:cpu",
        "rows": summary(STUDY, MEASURED, 2),
    }


def test_figures_by_hand() -> None:
    plain, more, int8, full = summary(STUDY, MEASURED, 2)
    assert plain["top1"]["value"] == 0.375
    assert (plain["val_top1"]["value"], plain["val_top1"]["n"], plain["val_by_seed"]) == (0.75, 4, [1.0, 0.5])
    assert plain["gain"] is None and plain["val_gain"] is None
    # Of the two validation photos the first student won none, the second one.
    assert (more["val_gain"]["value"], more["val_gain"]["n"]) == (25.0, 4)
    # The first student won one photo of four, the second two.
    assert more["gain"]["value"] == pytest.approx(37.5)
    assert more["gain"]["low"] < 37.5 < more["gain"]["high"]
    assert (int8["against"], int8["gain"]["value"]) == ("more", 0), "students of the same seed are compared"
    assert int8["gain"]["low"] < 0 < int8["gain"]["high"]
    # More lets right one of the two validation photos ... both of them: the final row has the same.
    assert (full["against"], full["gain"]["n"], full["gain"]["value"]) == ("int8 [q]", 2, 0)
    assert full["val_gain"] == full["gain"]
    # 8 ms of the teacher over the median of the ratios 2 and 4; the interval holds both.
    assert plain["ms"]["value"] == pytest.approx(8 / 3)
    assert (plain["ms"]["low"], plain["ms"]["high"]) == pytest.approx((8 / 4.4, 8 / 1.8))
    assert plain["speedup"]["bf16"] == {"value": 3.0, "low": 1.8, "high": 4.4, "n": 100}
    assert plain["seconds"] == 2.0
    assert (more["step_seconds"], more["images_per_second"]) == (0.5, 64.0)
    assert [row["front"] for row in (plain, more, int8, full)] == [False, False, True, False]


def test_a_row_that_is_not_measured_is_left_out() -> None:
    rows = summary(STUDY, {"plain": MEASURED["plain"], "int8 [q]": MEASURED["int8 [q]"]}, 2)
    assert [row["name"] for row in rows] == ["plain", "int8 [q]"]
    assert rows[1]["gain"] is None
    assert summary(STUDY, {}, 2) == []


def test_validation_photos_decide_and_held_out_ones_do_not() -> None:
    """Rows of one time each: "more" knows the held-out photos only, which the teacher taught it."""
    measured = {"plain": [student("1100", 2.0, seed=0)], "more": [student("1011", 2.0, seed=0)]}
    plain, more = summary(STUDY, measured, 2)
    assert more["top1"]["value"] > plain["top1"]["value"] and more["gain"]["value"] > 0 > more["val_gain"]["value"]
    assert (plain["front"], more["front"]) == (True, False)


def test_the_front() -> None:
    def row(ms: float, top1: float, final: bool = False) -> dict[str, Any]:
        return {"ms": {"value": ms}, "val_top1": {"value": top1}, "final": final}

    rows = [row(1, 0.5), row(2, 0.4), row(2, 0.7), row(1, 0.5), row(0.5, 0.9, final=True), {"final": False}]
    assert pareto(rows) == [True, False, True, True, False, False]


def test_tables_and_picture(tmp_path: Path) -> None:
    made = table()
    made["rows"].append({"name": "bad", "final": False, "front": False, "students": [{"why": "[gate] refused it"}]})
    assert write_study(made, tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    text = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert text == markdown(made)
    assert (
        "on 2 validation photos, through the SDK on ov:cpu. Beside that stands what it is with 2 train photos" in text
    )
    assert "that no student of this study learnt from (its teacher did): it does not decide." in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0].endswith(
        "teacher in f32 | times faster than the teacher in bf16 | seconds | s per step | images per s |"
    )
    assert lines[0].startswith("| row | top-1 on val | of each seed | points won on val | over | top-1 with held-out")
    assert "| more (fp32) | 100.00 % [" in lines[2]
    assert "] | 100.0 / 100.0 | 25.00 [" in lines[2]
    assert "] | plain | 75.00 % [" in lines[2] and "] | 37.50 [" in lines[2]
    assert " | int8 [q] | - | - | 3.00 MB | " in lines[4], "the published student may have learnt from them"
    assert "] | 3.00 MB | 4.00 MB | 2.000 [1.818, 2.222] | 4.00 [3.60, 4.40] | 4.00 [" in lines[2]
    assert lines[2].endswith(" | 2 | 0.5 | 64 |")
    assert lines[1].endswith(" | 2 | - | - |")
    assert "(1 refused)" in lines[3]
    assert lines[5].startswith("| bad | [gate] refused it | - |")
    assert "On the front (no row is as fast and as accurate): int8 [q]." in text
    assert "| more | distill | `distill.label=1` |" in text
    picture = cv2.imread(str(tmp_path / "study.png"))
    assert picture is not None
    assert picture.std() > 5

    from rich.console import Console

    console = Console(width=80, record=True, file=(tmp_path / "shown").open("w", encoding="utf-8"))
    console.print(rich_table(made))
    shown = console.export_text()
    assert "2.000" in shown
    assert "[q]" in shown
    assert "[gate]" in shown
