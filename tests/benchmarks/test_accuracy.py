from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.accuracy import accuracy_of, baselines
from benchmarks.evaluate import evaluate
from benchmarks.plan import make_plan
from sdk.bundle import open_bundle
from tests.evalsets import colour_evalset


def test_a_student_that_is_worse_lost_what_it_lost(colours: Path, worse: Path, tmp_path: Path) -> None:
    bundles = {"teacher": open_bundle(colours), "student": open_bundle(worse)}
    evalset = colour_evalset(tmp_path)
    plan = make_plan(bundles, ["ort:cpu"], tmp_path, tmp_path)
    results = {str(s): evaluate(s.bundle, evalset, s.cell, lambda _: None) for s in plan.subjects}
    (student,) = (s for s in plan.on("ort:cpu", "student") if s.stored == "fp32")
    row = accuracy_of(plan, student, evalset, results)
    assert row["against"] == "teacher fp32 ort:cpu f32"
    assert row["top1"]["value"] == 12 / 24  # red for green, green for red, and white for anything
    assert row["top1_drop"]["value"] == pytest.approx(100 * 12 / 24)
    assert row["answers_drop"]["value"] == pytest.approx(100 * 8 / 48)
    assert 0 < row["map_drop"]["value"] < row["map_drop"]["high"]
    assert row["class_lost"] == 0, "four images of a class may be chance"
    for name in ("top1_drop", "answers_drop"):
        assert 0 < row[name]["low"] < row[name]["value"] < row[name]["high"]
    elsewhere = dataclasses.replace(plan, subjects=tuple(s for s in plan.subjects if s.who == "student"))
    alone = accuracy_of(elsewhere, student, evalset, results)
    assert alone.keys() == row.keys() - {"against", "top1_drop", "map_drop", "answers_drop", "shop_drop", "class_lost"}


def test_what_guessing_reaches(tmp_path: Path) -> None:
    found = baselines(colour_evalset(tmp_path))
    assert found["chance_top1"] == 1 / 6
    assert found["largest_class_top1"]["value"] == 4 / 24
    assert found["chance_answers"] == 1 / 8  # six colours, yes and no
    assert found["largest_answer"]["value"] == 20 / 48  # "no"
    assert found["question_only"]["value"] == (4 + 20) / 48
