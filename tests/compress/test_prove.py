"""`python -m compress.prove`: its mistakes; what it tells of a bundle is in test_quantize_recipe.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress import prove
from tests.photos import picture, save


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "the following arguments are required: checkpoint, bundle, --photos; run: python -m compress.prove --help",
        ),
        (["x", "y", "--photos", "empty"], "--photos: empty holds no photo; give a folder with .bmp, .jpeg, .jpg, .png"),
        (["full", "y", "--photos", "full"], "wanted a dual encoder of images and texts, full holds no config.json"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "full" / "one.jpg", picture(0, 40))
    assert prove.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}"), "no field of a recipe is named: there is none"
    assert said.count("\n") == 1
