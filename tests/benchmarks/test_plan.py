"""What a plan takes, what it leaves out and why, and what a cell is opened as."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
import sdk
from benchmarks import plan as planning
from benchmarks.fresh import in_a_child
from benchmarks.picture import draw
from benchmarks.plan import Plan, make_plan
from benchmarks.progress import bar
from benchmarks.report import show, write_report
from benchmarks.samples import Samples
from benchmarks.stages import VARIETY, end_to_end_calls, frames_of, stage_calls
from runtimes import RecipeError, Unavailable
from sdk.bundle import open_bundle
from sdk.machine import resident
from tests.bundles import colour_frame, damage
from tests.evalsets import colour_evalset


@pytest.fixture(scope="module")
def plan(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    bundle = open_bundle(colours)
    folder = tmp_path_factory.mktemp("slim")
    return make_plan({"teacher": bundle, "student": bundle}, ["ort:cpu"], colours, folder)


def test_a_default_that_is_the_same_arithmetic_is_no_second_cell(plan: Plan) -> None:
    assert [str(s) for s in plan.subjects] == [
        "teacher fp32 ort:cpu f32",
        "teacher int8 ort:cpu int8+f32",
        "student fp32 ort:cpu f32",
        "student int8 ort:cpu int8+f32",
    ]
    assert [str(plan.on("ort:cpu", who)[0]) for who in ("teacher", "student")] == [
        "teacher fp32 ort:cpu f32",
        "student int8 ort:cpu int8+f32",
    ]
    assert plan.skipped == ()


def test_what_is_not_for_a_target_is_left_out_with_the_reason(colours: Path, tmp_path: Path) -> None:
    def only_ov(table: dict[str, Any]) -> None:
        for variants in table["graphs"].values():
            for graph in variants.values():
                graph["families"] = ["ov"]

    def stored_fp16(table: dict[str, Any]) -> None:
        table["graphs"]["image"]["int8"]["stored"] = "fp16"

    (tmp_path / "slim").mkdir()
    teacher = open_bundle(damage(colours, tmp_path / "teacher", change=only_ov))
    student = open_bundle(damage(colours, tmp_path / "student", change=stored_fp16))
    plan = make_plan({"teacher": teacher, "student": student}, None, tmp_path, tmp_path / "slim")
    reasons = {(s.who, s.on, s.stored): s.reason for s in plan.skipped}
    assert reasons["teacher", "ort:cpu", "any"] == f"{teacher.path} holds no graph for 'ort'"
    assert reasons["student", "ort:cpu", "fp16"] == "fp16 variants are not measured yet"
    assert {s.on for s in plan.subjects if s.who == "teacher"} == {"ov:cpu"}
    with pytest.raises(Unavailable, match=r"ort:cpu was asked for and does not open: teacher: .* holds no graph"):
        make_plan({"teacher": teacher, "student": student}, ["ort:cpu"], tmp_path, tmp_path / "slim")


def test_a_precision_that_an_engine_refuses_leaves_its_default(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ASKED", {"fp32": ("bf16", None), "int8": (None,)})  # ONNX Runtime has no bf16
    bundle = open_bundle(colours)
    plan = make_plan({"teacher": bundle, "student": bundle}, ["ORT:cpu"], colours, tmp_path)
    assert plan.targets == ("ort:cpu",)
    assert [(s.who, s.stored, s.compute) for s in plan.subjects if s.stored == "fp32"] == [
        ("teacher", "fp32", "f32"),
        ("student", "fp32", "f32"),
    ]
    assert [(s.who, s.stored, s.precision) for s in plan.skipped] == [
        ("teacher", "fp32", "bf16"),
        ("student", "fp32", "bf16"),
    ]
    assert "not in 'bf16'" in plan.skipped[0].reason


def test_a_machine_without_engines_says_what_to_install(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(colours)
    monkeypatch.setattr(runtimes, "targets", lambda: ())
    with pytest.raises(
        Unavailable, match=r"no target here opens these bundles: run: pip install 'edge-pupil\[openvino"
    ):
        make_plan({"teacher": bundle, "student": bundle}, None, tmp_path, tmp_path)


def test_a_child_that_fails_says_why(plan: Plan, tmp_path: Path) -> None:
    image = tmp_path / "none.png"
    with pytest.raises(Unavailable, match=r"student int8 ort:cpu .* does not run in a process of its own: .*none\.png"):
        in_a_child(plan.subjects[-1], image)


def test_memory_is_the_childs_own(plan: Plan, tmp_path: Path) -> None:
    """Even where the parent holds much more: on Linux the maximum of getrusage would be the parent's."""
    ballast = np.ones(80_000_000)  # 640 MB
    image = colour_evalset(tmp_path).images[0]
    found = in_a_child(plan.subjects[-1], image)
    assert resident()[0] > ballast.nbytes
    assert found["before_mb"] <= found["after_mb"] <= found["peak_mb"] < 500
    assert found["first_call_ms"] > 0
    assert found["load_ms"] > 0


def test_stages_walk_through_the_set(plan: Plan, tmp_path: Path) -> None:
    evalset = colour_evalset(tmp_path)
    frames = frames_of(evalset)
    assert len(frames) == len(evalset.images) <= VARIETY
    with plan.subjects[-1].open() as model:
        calls = stage_calls(model, evalset, frames)
        assert calls["decode"]().shape == (40, 40, 3)  # type: ignore[attr-defined]
        assert calls["resize"]().shape == (16, 16, 3)  # type: ignore[attr-defined]
        assert calls["fuse"]()["logits"].shape == (1, 9)  # type: ignore[index]
        classify = end_to_end_calls(model, evalset)["classify"]
        said = [classify()[0].label for _ in range(4)]  # type: ignore[index]
        assert said == ["red", "green", "blue", "yellow"]


def test_a_bundle_without_a_label_bank_is_timed_with_the_labels_of_the_set(colours: Path, tmp_path: Path) -> None:
    bare = damage(colours, tmp_path / "bare", change=lambda table: table.update(labels=None))
    (tmp_path / "eval").mkdir()
    with sdk.load(bare, on="ort:cpu") as model:
        classify = end_to_end_calls(model, colour_evalset(tmp_path / "eval"))["classify"]
        assert classify()[0].label == "red"  # type: ignore[index]


def test_programs_know_what_they_lack(colours: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from benchmarks.programs import Programs, programs_beside
    from tests.programs import write_programs

    write_programs(tmp_path / "t.pt2")
    bundle = open_bundle(colours)
    found = programs_beside(tmp_path / "t.pt2", ("image", "text", "fusion"))
    assert [path.name for path in found.values()] == ["t.pt2", "t.text.pt2", "t.fusion.pt2"]
    (tmp_path / "t.fusion.pt2").unlink()
    with pytest.raises(Unavailable, match=r"there is no program .*t\.fusion\.pt2 of the fusion tower"):
        programs_beside(tmp_path / "t.pt2", ("image", "text", "fusion"))
    with Programs(bundle, {"image": found["image"]}, "pt:cpu") as model:
        frame = colour_frame("red")
        assert model.task("classify")(frame)[0].label == "red"
        assert model.task("embed_images")([frame, frame]).shape == (2, 8)
        assert model.ran_on["image"].variant == "pt2"
        with pytest.raises(Unavailable, match="there is no program of the text tower"):
            model.task("embed_texts")(["a red wall"])
    with pytest.raises(Unavailable, match="is closed"):
        model.task("classify")(frame)


# Without rich and matplotlib, which are in the extra `bench`.


def test_without_matplotlib_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = draw({}, tmp_path / "a.png")
    assert said is not None
    assert said.startswith("no picture: matplotlib does not import")
    assert said.endswith("run: pip install 'edge-pupil[bench]'")


def test_without_rich_there_are_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with bar(4) as tick:
        for note in ("one", "one", "two"):
            tick(note, 1)
    assert capsys.readouterr().err == " 25 %  one\n 75 %  two\n"
    show({"quick": False, "speedups": [], "targets": [], "cells": []})
    assert capsys.readouterr().out.startswith("target  model  computed in  top-1")


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecipeError, match=r"--out .* cannot be written: .*; no half report was left behind"):
        write_report(tmp_path / "file" / "report", {}, Samples("m", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_samples_are_lines_of_json(plan: Plan, tmp_path: Path) -> None:
    samples = Samples("m", {"facts": {"cores": 2}})
    samples.add(plan.subjects[0], "x", "ms", np.array([1.5, 2.0]), way="fast")
    samples.write(tmp_path / "samples.jsonl")
    head, line = map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())
    assert head == {"machine": "m", "facts": {"cores": 2}}
    assert (line["metric"], line["unit"], line["samples"], line["way"]) == ("x", "ms", [1.5, 2.0], "fast")
