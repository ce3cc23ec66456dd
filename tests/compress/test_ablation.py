"""--ablate: a row per step, measured through the SDK, once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from compress import ablation as module
from compress.ablation import FILES, Ablation, subject
from compress.draft import DatasetSpec, Draft
from compress.recipe import Recipe
from compress.steps import run_steps
from sdk.bundle import open_bundle
from tests.conftest import distill
from tests.runs import copy_run
from tests.tiny import few_images, tiny_recipe


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    monkeypatch.setattr(module, "SECONDS", 0.05)


def ablated(recipe: Recipe, out: Path) -> Ablation:
    ablation = Ablation(out, recipe.name)
    run_steps(recipe, out, resume=True, on_step=ablation.add)
    return ablation


def broken(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


@pytest.mark.long
def test_a_row_per_step_and_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = tiny_recipe(tmp_path), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(module, "paired_latency", broken)
        with pytest.raises(KeyboardInterrupt):
            ablated(recipe, out)
    first = ablated(recipe, out)
    assert [row["step"] for row in first.rows] == ["teach", "embed", "prune", "distill"]
    teach, embed, pruned, student = first.rows
    assert (teach["model"], student["model"]) == ("teacher fp32", "student fp32")
    assert embed["bundles"] == []
    assert all(row["seconds"] > 0 for row in first.rows)
    for row in (teach, pruned, student):
        bundle = open_bundle(out / row["bundles"][0])
        assert row["bytes"] == sum(path.stat().st_size for path in bundle.path.glob("*.onnx"))
        assert row["top1"]["low"] <= row["top1"]["value"] <= row["top1"]["high"]
        assert 0 < row["top1"]["n"] <= 50
        assert row["ms"]["low"] <= row["ms"]["value"] <= row["ms"]["high"]
        assert row["bundles"][1] == teach["bundles"][0], "timed in turn with the first"
    assert not (out / ".work/ablation/export").exists()

    written = json.loads((out / FILES[0]).read_text())
    assert written == {"recipe": "tiny", "seed": 0, "split": "val", "rows": first.rows}
    lines = (out / FILES[1]).read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[-4:]] == ["| teach", "| embed", "| prune", "| distill"]
    assert lines[-3].startswith("| embed | - | - | - | - | - | - | ")

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate", broken)
        assert ablated(recipe, out).rows == first.rows
        changed = tiny_recipe(tmp_path, "distill.contrast=0.5")
        with pytest.raises(KeyboardInterrupt):
            ablated(changed, out)
        assert len(json.loads((out / FILES[0]).read_text())["rows"]) == 3
    assert ablated(changed, out).rows[:3] == first.rows[:3]
    shutil.rmtree(out / teach["bundles"][0])
    again = ablated(changed, out).rows[0]
    assert again["top1"] == teach["top1"], "measured again, for what was measured is gone"
    assert (out / again["bundles"][0]).exists()


@pytest.mark.parametrize("dead", ["tower.body.conv_stem.", "projection."])
def test_a_model_that_tells_nothing_apart_gets_its_row(tmp_path: Path, dead: str) -> None:
    """A cut network's channels may be dead: golden samples then meet, and engines need not agree on anything."""
    out, ablation = tmp_path / "run", Ablation(tmp_path / "run", "tiny")

    def blind(done: Any) -> None:
        weights = done.draft.teacher.image.weights
        state = load_file(weights)
        save_file({name: t * 0 if name.startswith(dead) else t for name, t in state.items()}, weights)
        ablation.add(done)

    recipe = tiny_recipe(tmp_path)
    run_steps(dataclasses.replace(recipe, steps=recipe.steps[:1]), out, on_step=blind)
    (row,) = ablation.rows
    if dead == "projection.":
        assert "answers leave the golden outputs by inf" in row["why"]
        assert ablation.markdown().splitlines()[-1].count(" | - | ") >= 2
    else:
        assert row["top1"]["value"] < 0.3


def test_what_a_step_made() -> None:
    spec = DatasetSpec("easy_vqa")
    empty = Draft(Path("/run"), Path("/run"), 0, spec)
    models: Any = ["a", "b"]
    teacher = dataclasses.replace(empty, teacher=models[0])
    student = dataclasses.replace(teacher, student=models[1])
    graphs = dataclasses.replace(student, teacher=models[1], student=models[0])
    gated = dataclasses.replace(graphs, bundles={"teacher": Path("/t"), "student": Path("/s")})
    shipped = dataclasses.replace(gated, bundles={"teacher": Path("/t"), "student": Path("/shipped")})
    path = [empty, teacher, teacher, student, graphs, gated, shipped, shipped]
    made = [subject(before, after) for before, after in pairwise(path)]
    assert made == ["teacher", None, "student", "student", "bundle", "bundle", None]


def test_answers_get_a_column_and_their_own_n(tmp_path: Path) -> None:
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    about = {"step": "distill", "model": "student int8", "bundles": ["x", "x"], "target": "ov:cpu", "compute": "int8"}
    figures = {"top1": share, "answers": {**share, "n": 7}, "ms": share, "speedup": share}
    row = {**about, **figures, "bytes": 2_000_000, "seconds": 1.0}
    ablation = Ablation(tmp_path, "tiny")
    ablation.rows.extend([row, {**row, "answers": None}])
    one, two = ablation.markdown().splitlines()[-2:]
    assert "50.00 % [40.00, 60.00] (n=100) | 50.00 % [40.00, 60.00] (n=7) | 2.00 MB | 0.500 ms (int8)" in one
    assert "(n=100) | - | 2.00 MB" in two
    console = Console(width=120, record=True, file=(tmp_path / "shown").open("w", encoding="utf-8"))
    console.print(ablation.table())
    assert "questions" in console.export_text()


@pytest.mark.long
def test_a_finished_run_can_be_ablated(short_run: Path, tmp_path: Path) -> None:
    copy_run(short_run / "out", tmp_path / "out")
    done = distill(tmp_path, "--resume", "--ablate")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out/easy_vqa"
    rows = json.loads((out / FILES[0]).read_text(encoding="utf-8"))["rows"]
    by_step = {row["step"]: row for row in rows}
    assert list(by_step) == list(json.loads((out / "report.json").read_text(encoding="utf-8"))["seconds"])
    assert [row["step"] for row in rows if not row["bundles"]] == ["embed"]
    models = {step: by_step[step]["model"] for step in ("teach", "prune", "distill", "quantize", "gate", "pack")}
    assert list(models.values()) == ["teacher fp32", *["student fp32"] * 2, *["student int8"] * 3]
    assert by_step["quantize"]["bytes"] < by_step["distill"]["bytes"] < by_step["teach"]["bytes"]
    assert by_step["pack"]["top1"] == by_step["gate"]["top1"], "the very graphs that passed are shipped"
    assert by_step["pack"]["bundles"][0] == "student"
    for path in FILES:
        assert str(out / path) in done.stdout
    assert "quantize" in done.stdout

    again = distill(tmp_path, "--resume", "--ablate")
    assert again.returncode == 0, again.stderr
    assert "ablate: " in done.stderr
    assert "ablate: " not in again.stderr
    assert json.loads((out / FILES[0]).read_text(encoding="utf-8"))["rows"] == rows
