"""The folder of a step that is being made: checkpoints go to the next attempt, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from compress import train
from compress.attempt import RECORD, begin, finish, read_record
from compress.draft import DatasetSpec, Draft
from compress.recipe import Recipe
from compress.steps import run_steps
from runtimes import GateFailed
from tests.tiny import few_images, tiny_recipe


@dataclasses.dataclass(frozen=True)
class Learn:
    """A step that is killed once after its checkpoint, and says in its report what it found when it began."""

    wrong: str = ""

    def run(self, draft: Draft) -> Draft:
        checkpoint = draft.folder / "checkpoint-net.pt"
        found = sorted(path.name for path in draft.folder.iterdir())
        if not checkpoint.exists():
            (draft.folder / "half").mkdir()
            (draft.folder / "half/weights").write_text("x")
            checkpoint.write_text("step 3")
            later = (draft.folder / RECORD).stat().st_mtime + 100
            os.utime(checkpoint, (later, later))
            raise KeyboardInterrupt
        if self.wrong:
            raise GateFailed(self.wrong.format(folder=draft.folder.with_suffix(".refused")))
        (draft.folder / "half").mkdir()
        (draft.folder / "report").write_text(f"{checkpoint.read_text()}, {' '.join(found)}")
        return dataclasses.replace(draft, report=draft.folder / "report")


def recipe(*steps: object, seed: int = 0) -> Recipe:
    return Recipe("tiny", "", seed, 1, DatasetSpec("easy_vqa"), steps)  # type: ignore[arg-type]


def interrupted(out: Path, wrong: str = "", resume: bool = True) -> Path:
    """A run that was killed inside of its step; the step's folder, without its ending."""
    with pytest.raises(KeyboardInterrupt):
        run_steps(recipe(Learn(wrong)), out, resume)
    return out / ".work/01-test_attempt"


def test_a_killed_step_finds_its_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    assert (tmp_path / ".work/01-test_attempt.tmp/half/weights").exists()
    draft = run_steps(recipe(Learn()), tmp_path, resume=True)
    assert draft.report is not None
    assert draft.report.read_text() == f"step 3, {RECORD} checkpoint-net.pt"
    assert 100 <= draft.seconds["test_attempt"] < 110, "of both attempts"
    assert sorted(path.name for path in folder.iterdir()) == ["half", "report", "step.json"]
    assert list(json.loads((folder / "step.json").read_text())["files"]) == [".work/01-test_attempt/report"]
    assert [path.name for path in (tmp_path / ".work").iterdir()] == ["01-test_attempt"]


def test_without_resume_or_for_another_key_a_step_begins_anew(tmp_path: Path) -> None:
    interrupted(tmp_path)
    interrupted(tmp_path, resume=False)
    with pytest.raises(KeyboardInterrupt):
        run_steps(recipe(Learn(), seed=7), tmp_path, resume=True)
    run_steps(recipe(Learn(), seed=7), tmp_path, resume=True)


def test_what_is_left_of_steps_that_the_recipe_lacks_goes_at_the_end(tmp_path: Path) -> None:
    interrupted(tmp_path)
    other = tmp_path / ".work/07-other.tmp"
    other.mkdir()
    interrupted(tmp_path / "new")
    assert other.exists()
    run_steps(recipe(Learn()), tmp_path, resume=True)
    assert not other.exists()


@pytest.mark.parametrize("wrong", ["lost too much", "lost too much; see {folder}"])
def test_what_a_gate_refuses_is_kept_and_tried_again(tmp_path: Path, wrong: str) -> None:
    refused = interrupted(tmp_path, wrong).with_suffix(".refused")
    for _ in range(2):
        with pytest.raises(GateFailed, match=r"lost too much.*01-test_attempt\.refused$") as error:
            run_steps(recipe(Learn(wrong)), tmp_path, resume=True)
        assert str(error.value).count("refused") == 1 + ("see" not in wrong)
        assert [path.name for path in (tmp_path / ".work").iterdir()] == [refused.name]
        assert not (refused / "checkpoint-net.pt").exists()
        interrupted(tmp_path, wrong)
        assert refused.exists()
    with pytest.raises(KeyboardInterrupt):
        run_steps(recipe(Learn()), tmp_path)
    assert not refused.exists(), "without --resume"
    refused.mkdir()
    run_steps(recipe(Learn()), tmp_path, resume=True)
    assert not refused.exists(), "a later attempt passed"


def test_an_attempt_can_be_killed_while_it_begins(tmp_path: Path) -> None:
    building = tmp_path / "01-x.tmp"
    assert begin(building, "a", True) == 0
    (building / "checkpoint-net.pt").write_text("x")
    (building / f"{RECORD}.new").write_text('{"ke')
    assert begin(building, "a", True) >= 0
    assert sorted(path.name for path in building.iterdir()) == [RECORD, "checkpoint-net.pt"]
    (building / RECORD).write_text('{"ke')
    assert begin(building, "a", True) == 0
    assert [path.name for path in building.iterdir()] == [RECORD]


def test_seconds_add_up_over_attempts(tmp_path: Path) -> None:
    building = tmp_path / "01-x.tmp"
    begin(building, "a", False)
    for total in (5.0, 10.0):
        later = (building / RECORD).stat().st_mtime + 5
        (building / "log").write_text("x")
        os.utime(building / "log", (later, later))
        assert begin(building, "a", True) == pytest.approx(total, abs=0.01)
    assert begin(building, "a", True) == pytest.approx(10.0, abs=0.5), "that attempt wrote nothing"
    (tmp_path / "01-x").mkdir()
    (tmp_path / "01-x/old").write_text("x")
    finish(building, tmp_path / "01-x")
    assert list((tmp_path / "01-x").iterdir()) == []
    assert not building.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_a_record_that_cannot_be_read_is_empty(tmp_path: Path, text: str) -> None:
    assert read_record(tmp_path / "none.json") == {}
    (tmp_path / "step.json").write_text(text)
    assert read_record(tmp_path / "step.json") == {}


@pytest.mark.parametrize("step", [pytest.param("teach", marks=pytest.mark.long), "distill"])
def test_training_that_was_killed_goes_on_from_inside_and_ends_in_the_same_weights(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real loops, small: what a loss draws must not depend on where training began."""
    few_images(monkeypatch)
    monkeypatch.setenv(train.EVERY_VARIABLE, "0")
    monkeypatch.setattr(train, "SHARE", float("inf"))
    loaded, out = tiny_recipe(tmp_path), tmp_path / "killed"
    whole = run_steps(loaded, tmp_path / "whole")
    save = train._save

    def killed(file: Path, *state: Any) -> None:
        save(file, *state)
        if step in str(file) and state[-1] >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            run_steps(loaded, out)
    capsys.readouterr()
    draft = run_steps(loaded, out, resume=True)
    assert re.search(rf"{step}: .*goes on after 2 of 4", capsys.readouterr().err)
    assert draft.metrics == whole.metrics
    for one, two in zip(draft.paths(), whole.paths(), strict=True):
        assert one.suffix != ".safetensors" or one.read_bytes() == two.read_bytes()
