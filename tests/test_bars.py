"""The default recipe at full length, twice, held against its bars (`make slow`)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import distill

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Reports of two runs with the same seed, and the seconds they took."""
    found = []
    for number in range(2):
        folder: Path = tmp_path_factory.mktemp(f"full{number}")
        started = time.monotonic()
        done = distill(folder, settings=())
        assert done.returncode == 0, done.stderr[-3000:]
        report = json.loads((folder / "out/easy_vqa/report.json").read_text(encoding="utf-8"))
        print(done.stdout)
        found.append({**report, "whole": time.monotonic() - started})
    return found


def cell(report: dict[str, Any], model: str, precision: str, target: str = "ov:cpu") -> dict[str, Any]:
    (row,) = [r for r in report["accuracy"] if (r["model"], r["precision"], r["target"]) == (model, precision, target)]
    found: dict[str, Any] = row
    return found


def test_the_teacher_reaches_98_percent(runs: list[dict[str, Any]]) -> None:
    for report in runs:
        assert cell(report, "teacher", "fp32")["top1"]["value"] >= 0.98


@pytest.mark.parametrize("target", ["ov:cpu", "ort:cpu"])
def test_the_int8_student_is_within_a_point_and_two_hundredths_of_map(runs: list[dict[str, Any]], target: str) -> None:
    for report in runs:
        row = cell(report, "student", "int8", target)
        assert row["top1_drop"]["value"] <= 1.0
        assert row["map_drop"]["value"] <= 0.02


def test_the_teacher_answers_98_percent_and_the_int8_student_is_within_a_point(runs: list[dict[str, Any]]) -> None:
    for report in runs:
        assert report["baselines"]["question_only"]["value"] < 0.68
        assert cell(report, "teacher", "fp32")["answers"]["value"] >= 0.98
        for target in ("ov:cpu", "ort:cpu"):
            row = cell(report, "student", "int8", target)
            assert row["answers"]["n"] == 9673
            assert row["answers_drop"]["value"] <= 1.0


def test_sizes(runs: list[dict[str, Any]]) -> None:
    size = runs[0]["size"]
    assert size["params"]["student"]["image"] <= size["params"]["teacher"]["image"] / 2
    assert size["bytes"]["student_int8"] <= size["bytes"]["teacher_fp32"] / 6


def test_parity_norms_and_words(runs: list[dict[str, Any]]) -> None:
    for report in runs:
        for row in report["parity"]:
            if row["precision"] == "fp32":
                assert min(row["cosine_min"], row["text_cosine_min"]) >= 0.9999
                assert row["same_top1"] >= 0.995
        assert max(row["norm_error"] for row in report["accuracy"]) <= 1e-5
        assert set(report["words"].values()) == {0}


def test_the_same_seed_gives_the_same_accuracy_to_a_fifth_of_a_point(runs: list[dict[str, Any]]) -> None:
    one, two = runs
    for row in one["accuracy"]:
        other = cell(two, row["model"], row["precision"], row["target"])
        assert abs(row["top1"]["value"] - other["top1"]["value"]) <= 0.002
        assert abs(row["map"]["value"] - other["map"]["value"]) <= 0.002


def test_ten_minutes(runs: list[dict[str, Any]]) -> None:
    """Wall clock on the reference machine, 2 cores without a GPU."""
    assert max(report["whole"] for report in runs) <= 600
