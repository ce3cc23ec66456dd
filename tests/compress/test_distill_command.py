"""The command: one clear line and an exit code for every mistake, and nothing written."""

from pathlib import Path

import pytest

from compress import distill
from compress.recipe import load_recipe
from runtimes import GateFailed, PupilError, Unavailable

RECIPE = "[data]\nname = 'easy_vqa'\n[teach]\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    assert distill.main([str(argument) for argument in arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


def test_an_unknown_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no recipe 'nothing'" in refused(capsys, "nothing", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_folder_that_is_not_ours(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / "thesis.doc").write_text("x")
    for more in ([], ["--resume"]):
        assert "was not made by this command; choose another --out" in refused(capsys, recipe, "--out", out, *more)
    assert [path.name for path in out.iterdir()] == ["thesis.doc"]
    assert "was not made by this command" in refused(capsys, recipe, "--out", out / "thesis.doc")


def test_an_earlier_run_needs_resume(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distill.claim(tmp_path / "o", load_recipe(recipe))
    assert "add --resume" in refused(capsys, recipe, "--out", tmp_path / "o")


def test_no_space(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, recipe, "--out", tmp_path / "a" / "b", "--set", "disk_mb=999999999")
    assert "needs 999999999 MB of disk" in said
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("error", "code"), [(GateFailed("too much lost"), 1), (Unavailable("no engine"), 2), (PupilError("x"), 2)]
)
def test_exit_codes(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: PupilError,
    code: int,
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(distill, "run_steps", fails)
    assert str(error) in refused(capsys, recipe, "--out", tmp_path / "o", code=code)


def test_an_interruption_says_how_to_go_on(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "run_steps", interrupted)
    assert "--resume goes on" in refused(capsys, recipe, "--out", tmp_path / "o", code=130)
