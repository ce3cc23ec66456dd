"""A draft goes to JSON and back, and moves with its folder."""

from pathlib import Path

import pytest

from compress.draft import DatasetSpec, Draft, ImageSpec, ModelFiles, TextSpec
from runtimes import RecipeError


def a_draft(out: Path) -> Draft:
    folder = out / ".work" / "01-teach.tmp"
    image = ImageSpec("net", {"model": "x"}, folder / "image.safetensors", 5, 64, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    text = TextSpec("bert", {"keep": ["a"]}, folder / "text.safetensors", 7, 16, folder / "tokenizer.json")
    graphs = {"image": {"fp32": folder / "image.onnx"}}
    model = ModelFiles(image, text, 128, 14.5, {"bert": "MIT"}, graphs)
    made = Draft(out, folder, 3, DatasetSpec("easy_vqa", {"val_images": 10}), teacher=model, store=out / "store")
    return made.with_metrics("teach", val_top1=0.5, note="x", n=3)


def test_json_round_trip(tmp_path: Path) -> None:
    draft = a_draft(tmp_path)
    assert Draft.from_json(draft.to_json(), tmp_path) == draft
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
    assert len(draft.paths()) == 7


def test_a_path_outside_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies outside the run's folder"):
        Draft(tmp_path / "run", Path("/elsewhere"), 0, DatasetSpec("x")).to_json()


def test_a_step_without_its_input_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[distill\] needs a store, and no step before it made one"):
        Draft(tmp_path, tmp_path, 0, DatasetSpec("x")).need("store", "distill")


def test_metrics_add_up(tmp_path: Path) -> None:
    draft = a_draft(tmp_path).with_metrics("embed", vectors=4)
    assert draft.metrics == {"teach.val_top1": 0.5, "teach.note": "x", "teach.n": 3, "embed.vectors": 4}
