"""Teachers on folds of a tiny shop: what is learnt from, what is measured, going on after a kill, every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compress import cross_validate, photo_scan
from compress.cross_validate import FILES, main, teacher_recipes
from compress.data import open_dataset
from compress.data.photos import Photos
from compress.lock import held
from compress.study import MARKER
from compress.study_plan import load_study
from compress.teaching import Lesson
from runtimes import RecipeError
from sdk.frames import Frame, read_frame
from tests.photos import folder_shop, picture, save
from tests.tiny import SHOP

STUDY = """
recipe = "shop.toml"
description = "Two of them."
[[rows]]
name = "plain"
[[rows]]
name = "fitted"
on = "plain"
set = ["teach.fit=true"]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "shop.toml").write_text(SHOP)
    (tmp_path / "mine.toml").write_text(STUDY)
    counts = {f"{split}/{name}": n for split, n in (("train", 10), ("val", 2), ("test", 1)) for name in ("pear", "fig")}
    folder_shop(tmp_path / "photos", counts)
    return tmp_path / "mine.toml"


def run(study: Path, *more: str) -> int:
    where = ("--out", str(study.parent / "out"), "--set", f"data.root={study.parent / 'photos'}")
    return main([str(study), "--folds", "2", *where, *more])


def test_folds_share_out_train_and_val(study: Path) -> None:
    root = str(study.parent / "photos")
    seen: list[str] = []
    for part in (1, 2, 3, 4):
        corpus = open_dataset("photos", {"root": root, "fold": f"{part}/4"}).load()
        assert not set(corpus.train.images) & set(corpus.val.images)
        assert len(corpus.test.images) == 2
        own = [path.relative_to(root).as_posix() for path in corpus.val.images]
        assert sum(path.startswith("val/") for path in own) == 1, "a quarter of val"
        assert len(own) == 6
        seen += own
    assert len(set(seen)) == 24
    assert len({open_dataset("photos", {"root": root, "fold": f"{part}/4"}).fingerprint() for part in (1, 2, 3)}) == 3


def test_one_scene_is_in_one_fold(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photos of it lie on both sides of the edge of a fold, which is no duplicate in the data set."""
    for number, quality in ((4, 95), (5, 50)):
        save(study.parent / f"photos/train/fig/{number:03d}.jpg", picture(77), quality)
    monkeypatch.setattr(cross_validate, "measure", lambda job, out, errors: {"correct": "1", "val": "1", "seconds": 0})
    assert run(study) == 0, capsys.readouterr().err
    root = str(study.parent / "photos")
    for part in (1, 2):
        corpus = open_dataset("photos", {"root": root, "fold": f"{part}/2"}).load()
        scene = [path.name for path in corpus.val.images if path.parent.parts[-2:] == ("train", "fig")]
        assert ("004.jpg" in scene) == ("005.jpg" in scene)


def test_each_photo_is_looked_at_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def counted(source: Path) -> Frame:
        looked.append(source)
        return read_frame(source)

    monkeypatch.setattr(photo_scan, "read_frame", counted)
    monkeypatch.setattr(photo_scan, "_known", {})
    monkeypatch.setattr(cross_validate, "measure", lambda job, out, errors: {"correct": "1", "val": "1", "seconds": 0})
    assert run(study) == 0
    assert len(looked) == 26


def test_folds_that_are_too_small_are_refused_before_any_work(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study, "--folds", "8") == 2
    said = capsys.readouterr().err
    assert "has 26 photos of 2 classes, and 2 of them for val, which needs 4; make fewer folds" in said
    assert "plain, fold" not in said


@pytest.mark.parametrize("fold", ["2", "a/b", "0/4", "1/2/3", "100/200"])
def test_what_is_no_fold_is_refused(fold: str) -> None:
    with pytest.raises(RecipeError, match=r'data\.fold is like "2/4", the second of four parts, or "" for none, got'):
        Photos(fold=fold)


@pytest.mark.parametrize("fold", ["5/4", "1/1"])
def test_a_fold_is_one_of_several(fold: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.fold counts from 1 to the number of parts, which is 2 or more, got"):
        Photos(fold=fold)


def test_killed_it_goes_on_and_ends_alike(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, fitted = Lesson.fit, []

    def killed(self: Lesson) -> None:
        fitted.append(1)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Lesson, "fit", killed)
    assert run(study) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert run(study) == 0
    assert len(fitted) == 3, "the first fold's is not fitted again"
    printed = capsys.readouterr().out
    out = study.parent / "out"
    table = json.loads((out / FILES[0]).read_text())
    assert [row["name"] for row in table["rows"]] == ["plain", "fitted"]
    for row in table["rows"]:
        assert row["top1"]["n"] == 24, "every photo but those of test"
        assert row["val_top1"]["n"] == 4, "those that the shop has for validation"
        assert np.mean(row["by_fold"]) == pytest.approx(row["top1"]["value"])
    one, two = table["rows"]
    assert one["gain"] is None
    assert two["gain"]["value"] == pytest.approx(100 * (two["top1"]["value"] - one["top1"]["value"]))
    assert "| fitted | " in printed
    assert "on 1 of 2 parts of the train and validation photos" in (out / FILES[1]).read_text()
    assert not list(out.rglob("*.safetensors"))

    monkeypatch.setattr(cross_validate, "run_from", None)
    assert run(study) == 0, "all is measured"


def test_photos_are_looked_at_before_any_work(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study.parent / "photos/train/pear/003.jpg").write_bytes(b"no photo")
    assert run(study) == 2
    said = capsys.readouterr().err
    assert "unreadable" in said
    assert "plain, fold" not in said


def test_one_process_at_a_time_works_in_a_folder(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = study.parent / "out"
    out.mkdir()
    (out / MARKER).write_text('{"study": "mine", "pid": 7}')
    with held(out / MARKER):
        assert run(study) == 2
    said = capsys.readouterr().err
    assert f"--out {out.resolve()} is in use by the process 7; wait until it ends, or choose another --out" in said


def test_mistakes_are_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folds in ("1", "100"):
        assert main([str(study), "--folds", folds]) == 2
        assert f"--folds must lie in 2..99, got {folds}" in capsys.readouterr().err
    for change, says in (
        (('on = "plain"', "final = true"), "is final, as it was published"),
        (('on = "plain"', 'until = "embed"'), r"the row 'fitted' is not of a teacher; leave out its final and until"),
        (("teach.fit", "embed.views"), r"'embed.views=true' sets nothing of them; set fields of: teach, data"),
    ):
        study.write_text(STUDY.replace(*change))
        with pytest.raises(RecipeError, match=says):
            teacher_recipes(load_study(study))
    study.write_text(STUDY)
    (study.parent / "shop.toml").write_text('name = "x"\n[data]\nname = "photos"\n[embed]\n')
    with pytest.raises(RecipeError, match=r"the recipe x does not start with \[teach\]: there is no teacher"):
        teacher_recipes(load_study(study))
