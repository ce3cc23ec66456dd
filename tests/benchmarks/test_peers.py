"""What `benchmarks/peers.py` refuses, and what it says of contenders that do not run. A whole run of it, on a
checkpoint and the bundle made of it, is in tests/compress/test_quantize_recipe.py."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.peer_process import PeerProcess
from benchmarks.peers import label_texts, main
from runtimes import RecipeError, Unavailable
from sdk.bundle import Bundle, open_bundle
from sdk.slim import slim


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(each) for each in arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said


def test_input_that_is_wrong(
    checkpoint: Path, colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, images = colour_run / "student", colour_run / "eval"
    rest = ("--bundle", bundle, "--images", images)
    assert "there is no checkpoint in" in refused(capsys, tmp_path, *rest)
    (checkpoint / "config.json").write_text('{"model_type": "bert"}')
    assert "is a 'bert'; wanted one of transformers': clip, siglip" in refused(capsys, checkpoint, *rest)
    (checkpoint / "config.json").write_text("[")
    assert "config.json cannot be read" in refused(capsys, checkpoint, *rest)
    (checkpoint / "config.json").write_text('{"model_type": "siglip"}')
    wanted = "wanted whole numbers from 2, such as 10,81, got "
    assert f"{wanted}'1,5'" in refused(capsys, checkpoint, *rest, "--labels", "1,5")
    assert f"{wanted}'many'" in refused(capsys, checkpoint, *rest, "--labels", "many")
    assert "there are texts for 500 labels, got 501" in refused(capsys, checkpoint, *rest, "--labels", "501")
    no_python = refused(capsys, checkpoint, *rest, "--optimum-python", tmp_path / "none")
    assert "none is no program that runs" in no_python
    (tmp_path / "empty").mkdir()
    empty = ("--bundle", bundle, "--images", tmp_path / "empty")
    assert "holds no photo; give a folder with" in refused(capsys, checkpoint, *empty)
    mute = slim(open_bundle(bundle), "ov:cpu", tmp_path / "mute", text=False)
    assert "has no text tower" in refused(capsys, checkpoint, "--bundle", mute.path, "--images", images)
    assert "run: python benchmarks/peers.py --help" in refused(capsys, checkpoint)


def test_ours_alone_is_no_comparison(
    checkpoint: Path, colour_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint without weights: neither transformers nor optimum-intel can open it."""
    bundle = slim(open_bundle(colour_run / "student"), "ov:cpu", tmp_path / "slim", precision="int8")
    assert main([str(checkpoint), "--bundle", str(bundle.path), "--images", str(colour_run / "eval"), "--quick"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: nobody else runs these weights: transformers, PyTorch: ")
    assert "optimum-intel: " in said
    assert not (tmp_path / "peers").exists()


def test_a_bundle_for_another_engine(
    checkpoint: Path, colour_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bundle, "variants", lambda *_: {})
    said = refused(capsys, checkpoint, "--bundle", colour_run / "student", "--images", colour_run / "eval")
    assert "holds no int8 and no fp32 graphs for OpenVINO; give another bundle" in said


def test_texts_of_labels_differ() -> None:
    texts = label_texts(500)
    assert len(set(texts)) == 500
    assert texts[:2] == ["a photo of a red apple", "a photo of a green pear"]
    with pytest.raises(RecipeError, match="there are texts for 500 labels, got 600"):
        label_texts(600)


def test_a_contender_that_does_not_run_says_why(tmp_path: Path) -> None:
    order = {"do": "open", "kind": "transformers", "path": str(tmp_path), "precision": None, "texts": [], "frames": []}
    with (
        PeerProcess(sys.executable, "transformers") as process,
        pytest.raises(Unavailable, match="transformers does not run: "),
    ):
        process.ask(order)
    with pytest.raises(Unavailable, match=r"optimum-intel: .*none does not run: "):
        PeerProcess(str(tmp_path / "none"), "optimum-intel")
    false = shutil.which("false")
    if false is not None:
        with (
            PeerProcess(false, "optimum-intel") as process,
            pytest.raises(Unavailable, match="optimum-intel does not run: it ended with code 1"),
        ):
            process.ask(order)
