"""A draft goes to JSON and back, and moves with its folder."""

import dataclasses
from pathlib import Path

import pytest

from compress.draft import DatasetSpec, Draft, FusionSpec, ImageSpec, ModelFiles, TextSpec
from runtimes import RecipeError


def a_draft(out: Path) -> Draft:
    folder = out / ".work" / "01-teach.tmp"
    image = ImageSpec("net", {"model": "x"}, folder / "image.safetensors", 5, 64, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    text = TextSpec(
        "bert", {"keep": ["a"]}, folder / "text.safetensors", 7, 16, folder / "tokenizer.json", without=("layer.1",)
    )
    fusion = FusionSpec("sum", {}, folder / "fusion.safetensors", 3, 32, 4, ("yes", "no"))
    graphs = {"image": {"fp32": folder / "image.onnx"}}
    model = ModelFiles(image, text, 128, 14.5, fusion, {"bert": "MIT"}, graphs)
    made = Draft(out, folder, 3, DatasetSpec("easy_vqa", {"val_images": 10}), teacher=model, store=out / "store")
    return made.with_metrics("teach", val_top1=0.5, note="x", n=3)


def test_json_round_trip(tmp_path: Path) -> None:
    draft = a_draft(tmp_path)
    assert Draft.from_json(draft.to_json(), tmp_path) == draft
    assert draft.teacher is not None
    mute = dataclasses.replace(draft, teacher=dataclasses.replace(draft.teacher, fusion=None))
    assert Draft.from_json(mute.to_json(), tmp_path) == mute
    assert str(tmp_path) not in draft.to_json()


def test_a_moved_run_still_finds_its_files(tmp_path: Path) -> None:
    draft = a_draft(tmp_path)
    again = Draft.from_json(draft.to_json(), tmp_path / "else")
    assert again.teacher is not None
    assert again.teacher.graphs["image"]["fp32"] == tmp_path / "else/.work/01-teach.tmp/image.onnx"


def test_moved_changes_only_what_lies_inside(tmp_path: Path) -> None:
    draft = a_draft(tmp_path).moved(tmp_path / ".work/01-teach.tmp", tmp_path / ".work/01-teach")
    assert draft.teacher is not None
    assert draft.teacher.text.tokenizer == tmp_path / ".work/01-teach/tokenizer.json"
    assert draft.store == tmp_path / "store"
    assert draft.teacher.fusion is not None
    assert draft.teacher.fusion.weights == tmp_path / ".work/01-teach/fusion.safetensors"
    assert len(draft.paths()) == 8


def test_weights_that_are_trained_again_lie_beside_and_have_no_graphs_yet(tmp_path: Path) -> None:
    model = a_draft(tmp_path).teacher
    assert model is not None
    again = model.beside(tmp_path / "student")
    assert again.image.weights == tmp_path / "student/image.safetensors"
    assert again.text.weights == tmp_path / "student/text.safetensors"
    assert again.fusion is not None
    assert again.fusion.weights == tmp_path / "student/fusion.safetensors"
    assert (again.graphs, again.text.tokenizer, again.text.without) == ({}, model.text.tokenizer, ("layer.1",))
    assert dataclasses.replace(model, fusion=None).beside(tmp_path).fusion is None


def test_a_path_outside_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies outside the run's folder"):
        Draft(tmp_path / "run", Path("/elsewhere"), 0, DatasetSpec("x")).to_json()


def test_a_step_without_its_input_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[distill\] needs a store, and no step before it made one"):
        Draft(tmp_path, tmp_path, 0, DatasetSpec("x")).need("store", "distill")


def test_metrics_add_up(tmp_path: Path) -> None:
    draft = a_draft(tmp_path).with_metrics("embed", vectors=4)
    assert draft.metrics == {"teach.val_top1": 0.5, "teach.note": "x", "teach.n": 3, "embed.vectors": 4}


def test_steps_stay_in_the_order_in_which_they_ran(tmp_path: Path) -> None:
    draft = dataclasses.replace(a_draft(tmp_path), seconds={"teach": 1.0, "embed": 2.0, "distill": 3.0})
    assert list(Draft.from_json(draft.to_json(), tmp_path).seconds) == ["teach", "embed", "distill"]
