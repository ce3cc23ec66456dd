"""A run needs more disk where the shop has more photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.disk import disk_needed
from compress.distill import main
from compress.recipe import load_recipe
from tests.photos import folder_shop


def test_frames_are_counted_at_each_edge(tmp_path: Path) -> None:
    folder_shop(tmp_path, {"train/a": 30, "train/b": 16, "val/a": 4, "test/a": 9})
    recipe = load_recipe("grocery", [f"data.root={tmp_path}"])
    edges = {300, 348, 240}  # of the teacher, of both augmentations, of the student
    assert disk_needed(recipe) == recipe.disk_mb + round(50 * 3 * sum(edge**2 for edge in edges) / 1e6)


def test_what_a_recipe_says_is_for_a_data_set_that_does_not_grow() -> None:
    assert disk_needed(load_recipe("easy_vqa")) == load_recipe("easy_vqa").disk_mb


def test_a_disk_that_is_too_small_for_the_photos_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = folder_shop(tmp_path / "shop", {"a": 20, "b": 20})
    monkeypatch.setattr("compress.data.photos.Photos.count", lambda self: 10**9)
    assert main(["grocery", "--out", str(tmp_path / "out"), "--set", f"data.root={shop}"]) == 2
    assert "the recipe needs 806116000 MB of disk, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
