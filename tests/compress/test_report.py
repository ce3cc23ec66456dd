"""The report: its tables, and one line for everything that is not a report."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from compress.draft import DatasetSpec, Draft, Pace
from compress.recipe import load_recipe
from compress.report import fill_readme, main, markdown, write_report
from compress.step_tables import candidate_rows, proof_rows, step_rows, training_rows
from compress.tables import accuracy_rows, baseline_rows, main_rows
from runtimes import RecipeError


def figure(value: float, n: int = 10) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n}


def a_row(model: str, precision: str) -> dict[str, Any]:
    where = {
        "model": model,
        "precision": precision,
        "target": "ov:cpu",
        "ran_on": {"image": "ov:cpu int8", "text": "ov:cpu f32"},
    }
    lost = {"top1_drop": figure(0.5), "map_drop": figure(0.01)} if model == "student" else {}
    return {**where, "top1": figure(0.9), "top1_by_text": figure(0.9), "map": figure(0.8), "norm_error": 1e-7, **lost}


SIZES = ("teacher_fp32", "student_int8", "student_int8_no_text")
RAN = {"target": "ov:cpu", "teacher_on": "ov:cpu", "teacher_compute": "f32", "student_compute": "int8"}
TIMES = {"teacher_ms": figure(2.0), "student_ms": figure(1.0), "speedup": figure(2.0)}
MEASURED: dict[str, Any] = {
    "data": {"name": "easy_vqa", "split": "test", "images": 10},
    "accuracy": [a_row("teacher", "fp32"), a_row("student", "int8")],
    "parity": [],
    "baselines": {"chance_top1": 1 / 24, "largest_class_top1": figure(0.1)},
    "size": {
        "slim_for": "ov:cpu",
        "bytes": dict.fromkeys(SIZES, 1000),
        "params": {who: {"image": 10} for who in ("teacher", "student")},
    },
    "words": {"kiosk": 0, "quokka": 1},
    "speed": [{**RAN, **TIMES}],
    "machine": {"cpu": "x"},
    "versions": {"torch": "2"},
}
METRICS: dict[str, float | str] = {
    "teach.val_top1": 0.98765,
    "quantize.image.chosen": "ort_static",
    **{f"quantize.image.nncf_ptq.{name}": 0.25 for name in ("distance", "slowness", "ms.ov:cpu", "ms.ort:cpu")},
    **{f"quantize.image.ort_static.{name}": 0.5 for name in ("distance", "slowness", "ms.ov:cpu", "ms.ort:cpu")},
    "gate.ov:cpu.drop": 0.25,
    "gate.ov:cpu.drop_low": -0.5,
    "gate.ov:cpu.drop_high": 1.0,
}


PACE = {"teach: train": Pace(120, 32, 0.25, "cuda"), "distill: train": Pace(60, 64, 0.5, "cpu")}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with report.json and report.md, as the command leaves it."""
    (tmp_path / "measured.json").write_text(json.dumps(MEASURED))
    (tmp_path / "teacher.pt2").touch()
    draft = Draft(tmp_path, tmp_path, 0, DatasetSpec("easy_vqa"), report=tmp_path / "measured.json", metrics=METRICS)
    draft = Draft(**{**vars(draft), "seconds": {"teach": 3.2, "quantize": 2.0, "gate": 1.0}, "pace": PACE})
    _, paths = write_report(draft, load_recipe("easy_vqa"))
    assert [path.name for path in paths] == ["teacher.pt2", "report.json", "report.md"], "what is there, and no more"
    return tmp_path


PROOF = {"texts": 219, "tokens": 1.0, "images": 100, "cosine_min": 0.9999996, "cosine_mean": 1.0, "read": 60}
PROOF |= {"text_cosine_min": 0.9999991, "text_cosine_mean": 0.9999998, "score_error": 2.34e-6}


def test_a_teacher_that_is_a_checkpoint_is_compared_in_a_table_of_its_own(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert len(proof_rows(report["steps"])) == 1 and "the checkpoint?" not in markdown(report)
    report["steps"] |= {f"teach.parity.{name}": value for name, value in PROOF.items()}
    assert proof_rows(report["steps"])[1:] == [
        ("token ids", "219 texts", "100.00% equal", "all"),
        ("vectors of images", "100 images", "cosine at least 0.9999996, mean 1.0000000", "0.9995"),
        ("vectors of texts", "60 texts", "cosine at least 0.9999991, mean 0.9999998", "0.9995"),
        ("probabilities", "100 images, 60 texts", "differ by 2.3e-06 at most", "0.001"),
    ]
    report["steps"]["teach.parity.default_error"] = 0.0109
    row = (
        "probabilities, its library's default resize",
        "100 images, 60 texts",
        "differ by 1.1e-02 at most",
        "not asked",
    )
    assert proof_rows(report["steps"])[-1] == row
    assert "## Is the teacher the checkpoint?" in markdown(report)
    assert step_rows(report)[1] == ("teach", "3", "val_top1 0.9877")


def test_each_step_has_one_row_and_quantizers_have_their_own_table(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert step_rows(report)[1:] == [
        ("teach", "3", "val_top1 0.9877"),
        ("quantize", "2", "image.chosen ort_static"),
        ("gate", "1", "ov:cpu.drop 0.25 [-0.5, 1]"),
    ]
    assert candidate_rows(report["steps"]) == [
        ("tower", "quantizer", "chosen", "distance", "ort:cpu ms", "ov:cpu ms"),
        ("image", "nncf_ptq", "", "0.25", "0.25", "0.25"),
        ("image", "ort_static", "yes", "0.5", "0.5", "0.5"),
    ]
    text = (run / "report.md").read_text()
    assert "## Quantizers that were tried" in text
    assert "The test split is used by [pack] only, after every choice was made." in text
    assert "1 of 2 tokenize without an unknown token (kiosk, quokka)" in text


def test_the_row_of_embed_says_what_was_there_before(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    report["seconds"]["embed"] = 5.0
    report["steps"]["embed.vectors"] = 30
    report["embedded"] = {"new": 10, "kept": 20}
    assert step_rows(report)[-1] == ("embed", "5", "vectors 30, new 10, kept 20")


def test_each_training_has_its_pace(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    wanted = {"device": "cuda", "processes": 1, "steps": 120, "batch": 32}
    wanted |= {"seconds_per_step": 0.25, "images_per_second": 128.0}
    assert report["training"]["teach: train"] == wanted
    assert training_rows(report)[1:] == [
        ("teach: train", "cuda", "120", "32", "0.25", "128"),
        ("distill: train", "cpu", "60", "64", "0.5", "128"),
    ]
    assert "## Training" in (run / "report.md").read_text()
    assert "## Training" not in markdown({**report, "training": {}})


def test_without_candidates_there_is_no_table_of_them(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert len(candidate_rows({})) == 1
    assert "Quantizers" not in markdown({**report, "steps": {}})


def test_questions_have_a_row_only_where_they_are_answered() -> None:
    assert not any("questions" in row[0] for row in main_rows(MEASURED))
    assert [row[-3:-1] for row in accuracy_rows(MEASURED)[1:]] == [("", "")] * 2
    teacher, student = copy.deepcopy(MEASURED["accuracy"])
    teacher["answers"], student["answers"] = figure(0.97, 400), figure(0.95, 400)
    student["answers_drop"] = figure(2.0, 400)
    asked = {**MEASURED, "accuracy": [teacher, student]}
    (row,) = (row for row in main_rows(asked) if "questions" in row[0])
    shown = ("97.00 % [87.00, 107.00]", "95.00 % [85.00, 105.00]", "-2.00 points [-2.10, -1.90]")
    assert row == ("questions right (n=400)", *shown)
    assert [row[-3:-1] for row in accuracy_rows(asked)[1:]] == [(shown[0], ""), (shown[1], "2.00 [1.90, 2.10]")]

    asked["baselines"] = {**MEASURED["baselines"], "question_only": figure(0.52, 400)}
    row, blind = (row for row in main_rows(asked) if "question" in row[0])
    assert row == ("questions right (n=400)", *shown)
    assert blind == ("guessed from the question alone", "52.00 % [42.00, 62.00]", "", "")
    assert baseline_rows(asked)[-1] == ("question-only guess, 400 test questions", "52.00 % [42.00, 62.00]")
    # A student that was made not to answer leaves nothing to compare.
    mute = {**asked, "accuracy": [teacher, MEASURED["accuracy"][1]]}
    assert not any("questions" in row[0] for row in main_rows(mute))


def test_without_a_measurement_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the recipe has no \[pack\] step, so there is no report; add \[pack\]"):
        write_report(Draft(tmp_path, tmp_path, 0, DatasetSpec("easy_vqa")), load_recipe("easy_vqa"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


def test_the_command_prints_the_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run)]) == 0
    assert "easy_vqa: 10 test images" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{}", "[]", "3", '"x"', '{"recipe": "x", "data": {"images": 1, "split": "test"}}'])
def test_a_foreign_report_is_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text(text)
    assert "report.json is not the report of a run (" in refused(capsys, tmp_path)


def test_no_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no finished run" in refused(capsys, tmp_path)
    (tmp_path / "report.json").write_text("{")
    assert "holds no finished run" in refused(capsys, tmp_path)
    assert "unrecognized arguments: --frob; run: python -m compress.report --help" in refused(capsys, "x", "--frob")


def test_a_readme_that_cannot_be_filled_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = run / "NO.md"
    assert f"--readme {missing} cannot be filled" in refused(capsys, run, "--readme", missing)
    binary = run / "BINARY.md"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot be filled" in refused(capsys, run, "--readme", binary)
    binary.write_text("no marks")
    with pytest.raises(RecipeError, match="lacks the marks <!-- results --> and <!-- /results -->; add them"):
        fill_readme(binary, "table")
