"""A whole study: students of one teacher share what they have in common, are killed and gone on with, measured once."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress import distill, qat, study, study_measure, views
from compress.augment import Augment
from compress.data import open_dataset
from compress.distilling import Distilling
from compress.draft import Draft
from compress.hold_out import held_out
from compress.lock import held
from compress.prepared import prepared
from compress.recipe import Recipe, load_recipe
from compress.steps import read_step, run_steps
from compress.steps.distill import Distill
from compress.steps.gate import Gate
from compress.steps.prune import Prune
from compress.steps.quantize import Quantize
from compress.store import identity, open_store
from compress.study_run import StudyRun
from runtimes import GateFailed, RecipeError
from tests.conftest import ROOT
from tests.photos import folder_shop
from tests.tiny import SHOP

RECIPE = (
    SHOP
    + """
[prune]
image = "timm_image"
image_options = { model = "lcnet_035" }
text_layers = 1
samples = 128
[distill]
epochs = 6
batch = 16
phrases = 8
text_every = 4
[quantize]
quantizers = ["ort_static"]
samples = 16
held_out = 8
[gate]
[pack]
"""
)
STUDY = """
recipe = "shop.toml"
description = "A test."
seeds = 1
set = ["prune.hold_out=0.25", "distill.label=1"]
[[rows]]
name = "float"
[[rows]]
name = "int8"
on = "float"
until = "quantize"
[[rows]]
name = "published"
on = "int8"
final = true
"""
TRAIN = 24  # photos of each of three classes
STEPS = 6 * (3 * TRAIN * 3 // 4 // 16)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_measure, "SECONDS", 0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that got as far as [embed]; beside it shop.toml and study.toml. It is read, never written."""
    folder = tmp_path_factory.mktemp("study")
    names = ("pear", "plum", "fig")
    shop = folder_shop(folder / "photos", {f"{split}/{name}": count for split, count in COUNTS for name in names})
    (folder / "shop.toml").write_text(RECIPE.replace('"photos"', f'"photos"\nroot = "{shop.as_posix()}"'))
    (folder / "study.toml").write_text(STUDY)
    recipe = load_recipe(folder / "shop.toml")
    distill.claim(folder / "run", recipe)
    run_steps(first(recipe, 2), folder / "run")
    return folder / "run"


COUNTS = (("train", TRAIN), ("val", 4), ("test", 1))


def first(recipe: Recipe, count: int) -> Recipe:
    return Recipe(recipe.name, recipe.description, recipe.seed, recipe.disk_mb, recipe.dataset, recipe.steps[:count])


def command(run: Path, out: Path, *more: str, study: str = "study.toml") -> list[str]:
    return [str(run.with_name(study)), "--from", str(run), "--out", str(out), *more]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert study.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


@pytest.fixture(scope="module")
def out(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished study. It is read, never written."""
    folder = tmp_path_factory.mktemp("done") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_measure, "SECONDS", 0.05)
        assert study.main(command(run, folder)) == 0
    return folder


def students(out: Path, step: str) -> list[Path]:
    return sorted((out / ".work/study/steps").glob(f"{step}-*"))


def table(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "study.json").read_text(encoding="utf-8"))
    return found


def test_rows_share_their_steps_and_are_measured_on_photos_that_none_learnt_from(out: Path) -> None:
    found = table(out)
    one, two = found["rows"]
    assert [row["name"] for row in (one, two)] == ["float", "int8"], "nothing is published yet"
    assert len(students(out, "prune")) == len(students(out, "distill")) == 1
    assert students(out, "quantize") == [], "graphs go when nothing needs them"
    assert not list((out / ".work").glob("**/*.pt"))
    assert not (out / ".work/images").exists()
    assert found["data"]["val"] == 12
    assert len(found["photos"]) == 12 + 3 * TRAIN // 4
    assert sum(name.startswith("val/") for name in found["photos"]) == 12
    for row, precision in ((one, "fp32"), (two, "int8")):
        (student,) = row["students"]
        assert len(student["correct"]) == student["n"] == len(found["photos"])
        assert (row["precision"], row["top1"]["value"]) == (precision, student["correct"].count("1") / student["n"])
        assert row["ms"]["low"] <= row["ms"]["value"] <= row["ms"]["high"]
        assert "f32" in row["speedup"]
        assert row["images_per_second"] == pytest.approx(16 / row["step_seconds"])
    assert one["val_top1"]["value"] == one["students"][0]["correct"][:12].count("1") / 12, "those decide"
    assert set(one["students"][0]["seconds"]) == {"prune", "distill"}
    assert set(two["students"][0]["seconds"]) == {"prune", "distill", "quantize"}
    assert two["bytes"]["image"] < one["bytes"]["image"]
    assert two["against"] == "float"
    assert two["gain"]["low"] <= two["gain"]["value"] <= two["gain"]["high"]
    assert {path.name for path in out.iterdir()} == {".study.json", ".work", "study.json", "study.md", "study.png"}


def test_nothing_is_done_twice_and_one_change_does_one_row_again(
    run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(out, mine, copy_function=os.link)
    for name in ("study.json", "study.md", "study.png"):
        (mine / name).unlink()

    def fails(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StudyRun, "measure", fails)
        assert study.main(command(run, mine)) == 0
        shown = capsys.readouterr()
        assert "published: " in shown.err
        assert "has published no student yet; left out" in shown.err
        assert str(mine.resolve() / "study.md") in shown.out.splitlines()
        assert table(mine)["rows"] == table(out)["rows"]
        assert study.main(command(run, mine, "--set", "quantize.samples=15")) == 130
        assert "interrupted; the same command goes on from the last checkpoint" in capsys.readouterr().err
    assert [row["name"] for row in table(mine)["rows"]] == ["float"]

    def refuses(self: object, _: Draft) -> Draft:
        raise GateFailed("too much lost")

    with monkeypatch.context() as patch:
        patch.setattr("compress.steps.quantize.Quantize.run", refuses)
        assert study.main(command(run, mine, "--set", "quantize.samples=15")) == 0
    said = capsys.readouterr().err
    assert "prune: done before\ndistill: done before\n" in said, "the row it is on was trained before"
    assert table(mine)["rows"][1]["students"][0]["why"].startswith("too much lost; what was refused is kept in ")
    assert len(list((mine / ".work/study/steps").glob("*.refused"))) == 1
    assert study.main(command(run, mine, "--set", "distill.batch=17", "--set", "quantize.samples=0")) == 2
    with monkeypatch.context() as patch:
        patch.setattr(StudyRun, "measure", fails)
        assert study.main(command(run, mine, "--set", "distill.batch=17")) == 130
    assert len(students(mine, "prune")) == 1
    assert students(mine, "distill"), "of other settings, which the next call may ask for again"


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
def test_killed_inside_of_training_it_goes_on_there_and_ends_alike(
    run: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9, while the first student is distilled."""
    text = STUDY.partition('[[rows]]\nname = "int8"')[0]
    run.with_name("short.toml").write_text(text.replace("recipe", 'name = "study"\nrecipe', 1))
    mine = tmp_path / "mine"
    shutil.copytree(out, mine, copy_function=os.link)  # with teacher and its bundle; nothing trained, nothing measured
    for name in ("steps", "rows"):
        shutil.rmtree(mine / ".work/study" / name)
    code = "import sys\nfrom compress import study\nsys.exit(study.main())"
    asked = command(run, mine, study="short.toml")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PUPIL_CHECKPOINT_SECONDS": "0"}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([sys.executable, "-c", code, *asked], env=environment, stdout=said, stderr=said)
    checkpoints: list[Path] = []
    while not checkpoints and process.poll() is None:
        checkpoints = list(mine.glob(".work/study/steps/distill-*.tmp/checkpoint-distill.pt"))
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (tmp_path / "said").read_text()
    reached = int(torch.load(checkpoints[0], weights_only=True)["step"])
    assert 0 < reached < STEPS
    assert study.main(asked) == 0
    assert f"distill: train: goes on after {reached} of {STEPS}" in capsys.readouterr().err
    (one,), (two,) = students(out, "distill"), students(mine, "distill")
    assert one.name == two.name
    for name in ("image.safetensors", "text.safetensors"):
        assert (one / "student" / name).read_bytes() == (two / "student" / name).read_bytes()
    assert table(mine)["rows"][0]["top1"] == table(out)["rows"][0]["top1"]


def test_mistakes_are_told_before_any_work(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"

    def said(*more: str, of: Path = run) -> str:
        return refused(capsys, [str(run.with_name("study.toml")), "--from", str(of), "--out", str(mine), *more])

    assert f"--from {tmp_path} holds no run of compress.distill; give the --out of an earlier one" in said(of=tmp_path)
    assert "a study needs at least 1 seed, got 0" in said("--seeds", "0")
    assert "[distill] has no field 'epoch'" in said("--set", "distill.epoch=1")
    other = tmp_path / "other"
    other.mkdir()
    (other / ".pupil.json").write_text('{"recipe": "grocery"}')
    assert f"--from {other} is a run of the recipe 'grocery', and this study is of 'shop'; give a run" in said(of=other)
    (other / ".pupil.json").write_text('{"recipe": "shop"}')
    wanted = (
        f"--from {other} has no finished [teach], or not all of its files as they were made; finish it: the command"
    )
    assert wanted in said(of=other)
    assert "is not what --from" in said("--set", "data.licence='mine'")
    assert "timm has no model 'lcnet_05'" in said("--set", "prune.image_options.model='lcnet_05'")
    assert not mine.exists()

    mine.mkdir()
    (mine / "thesis.doc").write_text("x")
    assert f"--out {mine.resolve()} exists and was not made by this command; choose another --out" in said()
    (mine / ".study.json").write_text('{"study": "grocery"}')
    assert "holds the study grocery; choose another --out for study" in said()
    (mine / ".study.json").write_text('{"study": "study", "pid": 7}')
    with held(mine / ".study.json"):
        assert f"--out {mine.resolve()} is in use by the process 7; wait until it ends, or choose another" in said()


def test_a_published_student_gets_a_row_of_its_own(
    run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run has published lies in RUN/student; here it is the bundle of the teacher."""
    mine, folder = tmp_path / "mine", tmp_path / "run"
    shutil.copytree(out, mine, copy_function=os.link)
    shutil.copytree(run, folder, copy_function=os.link)
    (bundle,) = (out / ".work/study").glob("teacher-*")
    shutil.copytree(bundle, folder / "student")
    said = {"seconds": {"teach": 9.0, "distill": 3.0}, "training": {"distill: train": {"seconds_per_step": 0.1}}}
    (folder / "report.json").write_text(json.dumps(said))
    text = STUDY.replace("recipe", 'name = "study"\nrecipe', 1).replace("shop.toml", str(run.with_name("shop.toml")))
    (tmp_path / "full.toml").write_text(text)
    arguments = [str(tmp_path / "full.toml"), "--from", str(folder), "--out", str(mine)]
    assert study.main(arguments) == 0
    final = table(mine)["rows"][2]
    assert (final["name"], final["final"], final["front"], final["seconds"]) == ("published", True, False, 3.0)
    assert final["step_seconds"] == 0.1
    assert final["students"][0]["n"] == len(final["students"][0]["correct"]) == final["gain"]["n"] == 12
    monkeypatch.setattr(study_measure, "evaluate", None)
    assert study.main(arguments) == 0, "not measured again"


@pytest.fixture
def lesson(run: Path, out: Path) -> Callable[..., Distilling]:
    """Makes a lesson of the study's student, before it was trained, with other fields of [distill]."""
    (step,) = students(out, "prune")
    read = read_step(step, out.resolve())
    assert read is not None
    draft = read[1]
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    store = open_store(draft.need("store", "test"), identity(draft.need("teacher", "test")), corpus.fingerprint)

    def make(hold_out: float = 0.0, **fields: Any) -> Distilling:
        asked, mine = Distill(batch=16, phrases=8, **fields), dataclasses.replace(draft, hold_out=hold_out)
        return Distilling(asked, draft.need("student", "test"), corpus, store, mine)

    return make


def test_what_is_held_out_is_never_learnt_from(
    lesson: Callable[..., Distilling], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def noted(frames: np.ndarray, chosen: np.ndarray, *_: object) -> np.ndarray:
        seen.extend(chosen.tolist())
        return np.zeros((len(chosen), 32, 32, 3), np.uint8)

    monkeypatch.setattr("compress.views.augment_batch", noted)
    whole, part = lesson(epochs=4), lesson(epochs=8, hold_out=0.5)
    assert (whole.steps, part.steps) == (4 * 4, 8 * 2)
    for task, most in ((whole, 3 * TRAIN), (part, 3 * TRAIN // 2)):
        seen.clear()
        for step in range(task.steps):
            task.loss(step)
        assert len(set(seen)) == most
        by_class = np.bincount(np.array(sorted(set(seen))) // TRAIN)
        assert by_class.tolist() == [most // 3] * 3
    with pytest.raises(RecipeError, match=r"prune\.hold_out = 0\.9 leaves 6 train images: not one step; lower one"):
        lesson(hold_out=0.9)
    with pytest.raises(RecipeError, match=r"prune\.hold_out is a share, from 0 to below 1, got 1"):
        Prune(hold_out=1.0)
    with pytest.raises(RecipeError, match="the weights of losses must not be negative"):
        Distill(label=-1.0)


def test_nor_do_pruning_and_quantizing_see_it(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (step,) = students(out, "distill")
    read = read_step(step, out.resolve())
    assert read is not None
    draft = dataclasses.replace(read[1], out=tmp_path, folder=tmp_path)
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    left_out = set(held_out(corpus.train.label, 0.25).tolist())
    assert len(left_out) == 3 * TRAIN // 4
    seen: set[int] = set()
    really = views.augment_batch

    def noted(frames: np.ndarray, rows: np.ndarray, *more: Any) -> np.ndarray:
        seen.update(rows.tolist())
        return really(frames, rows, *more)

    monkeypatch.setattr(views, "augment_batch", noted)
    lcnet = {"model": "lcnet_050"}
    after = Prune(image="timm_image", image_options=lcnet, image_params=0.9, samples=128, hold_out=0.25).run(draft)
    assert after.hold_out == 0.25
    assert seen == set(range(3 * TRAIN)) - left_out

    student = draft.need("student", "test")
    feeds, _ = Quantize(samples=1000)._feeds("image", student, corpus, draft)
    frames = prepared(corpus.train.images, student.image.size, tmp_path, "read")
    known = {frame.tobytes() for feed in feeds for frame in feed["image"]}
    assert known == {frames[row].tobytes() for row in range(3 * TRAIN) if row not in left_out}


def test_without_a_labelled_photo_there_is_nothing_to_measure_on(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = study_measure.evalset
    monkeypatch.setattr(
        study_measure,
        "evalset",
        lambda *given: dataclasses.replace(whole := really(*given), label=np.full_like(whole.label, -1)),
    )
    (step,) = students(out, "prune")
    read = read_step(step, out.resolve())
    assert read is not None
    with pytest.raises(RecipeError, match="no validation image with a known label; a study has nothing to measure on"):
        study_measure.Yardstick(read[1], tmp_path, 0.25)


def test_the_label_loss_is_added_with_its_weight(lesson: Callable[..., Distilling]) -> None:
    silent: dict[str, Any] = {"feature": 0, "affinity": 0, "contrast": 0, "text_feature": 0}
    none, one, half, smooth = (
        lesson(**silent, **more).loss(1).item()
        for more in ({}, {"label": 1.0}, {"label": 0.5}, {"label": 1.0, "smoothing": 0.5})
    )
    assert none == 0
    assert one > 0
    assert half == pytest.approx(one / 2)
    assert smooth != pytest.approx(one)


def test_training_with_rounding_in_any_case_leaves_out_what_is_held_out(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (step,) = students(out, "distill")
    read = read_step(step, out.resolve())
    assert read is not None
    draft = dataclasses.replace(read[1], out=tmp_path, folder=tmp_path)
    assert draft.hold_out == 0.25
    draft = dataclasses.replace(draft, train_size=24)
    with monkeypatch.context() as patch:
        patch.setattr(Gate, "_retrain", lambda *_: draft.student)
        trial: Any = None
        assert list(Gate(always_qat=True)._candidates(draft, trial, [])) == [("retrained", draft.student)]
    with pytest.raises(
        RecipeError, match=r"gate\.always_qat trains for gate\.qat_epochs, which is 0; set it to at least"
    ):
        Gate(always_qat=True, qat_epochs=0)

    seen: list[int] = []
    sizes: set[tuple[int, int]] = set()
    really = views.augment_batch

    def noted(frames: np.ndarray, rows: np.ndarray, augment: Augment, size: int, seed: int, view: int) -> np.ndarray:
        seen.extend(rows.tolist())
        sizes.add((view, size))
        return really(frames, rows, augment, size, seed, view)

    def stops(title: str, model: object, pair: object, steps: int, loss_of: Callable[[int], Any], *_: object) -> None:
        for at in range(steps):
            loss_of(at)
        raise KeyboardInterrupt

    monkeypatch.setattr(views, "augment_batch", noted)
    monkeypatch.setattr(qat, "train", stops)
    with pytest.raises(
        RecipeError, match=r"training with rounding needs 64 train images, and there are 54; leave it out"
    ):
        qat.retrain(draft, tmp_path, 2, 1e-4)
    monkeypatch.setattr(qat, "BATCH", 18)
    with pytest.raises(KeyboardInterrupt):
        qat.retrain(draft, tmp_path, 2, 1e-4)
    assert len(seen) == 2 * 54
    assert np.bincount(np.unique(seen) // TRAIN).tolist() == [18] * 3
    assert sizes == {(0, 32), (1, 24)}, "whole frames, then crops like those that it learnt from"
