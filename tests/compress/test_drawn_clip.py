"""A CLIP of full size with random weights, by the command (`make slow`; what it is used for needs hundreds of MB)."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.drawn_clip import main


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("")
    assert main([str(tmp_path)]) == 2
    assert "is there already; give a folder that is not" in capsys.readouterr().err


@pytest.mark.long
def test_it_is_a_clip_that_the_recipe_reads(tmp_path: Path) -> None:
    from compress.checkpoints import family_of

    assert main([str(tmp_path / "clip")]) == 0
    found = family_of(tmp_path / "clip").load(tmp_path / "clip")
    vectors = found.own.texts(["a photo of a cat", "two wooden chairs"])
    assert vectors.shape == (2, 512)
    assert (vectors[0] * vectors[1]).sum() < 0.999, "a network that says the same of everything proves nothing"
