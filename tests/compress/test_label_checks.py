"""Labels that the text tower reads alike, and words that a cut vocabulary has no room for, are told before training."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from compress.data import Label
from compress.distill import main
from compress.label_checks import check_labels
from compress.models.text import minilm
from runtimes import RecipeError
from tests.photos import folder_shop
from tests.tiny import SHOP


def labels(*names: str) -> list[Label]:
    return [Label(name, (f"a photo of {name}", name)) for name in names]


def refusal(*names: str, length: int = 16) -> str:
    with pytest.raises(RecipeError, match="the text tower reads labels alike that are meant to differ: ") as refused:
        check_labels(labels(*names), minilm.tokenizer({}, length))
    return str(refused.value)


def test_labels_that_are_the_same_tokens() -> None:
    assert "Äpple = Apple; to it accents and capitals are the same" in refusal("Äpple", "pear", "Apple")
    assert "🍎 = 🍐" in refusal("🍎", "🍐")
    assert "แอปเปิ้ล = มะม่วง; to it" in refusal("แอปเปิ้ล", "มะม่วง", "fig")
    said = refusal(*(name for at in range(6) for name in (f"caf{at}é", f"caf{at}e")))
    assert "caf0é = caf0e, caf1é = caf1e, caf2é = caf2e, caf3é = caf3e, caf4é = caf4e, ...; to it" in said
    assert "red = red" not in refusal("a b c d e f g h", "a b c d e f g i", "red", length=8)


def test_labels_with_unknown_characters_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_labels(labels("apple", "pear 🍐", "มะม่วง plum"), minilm.tokenizer({}, 16))
    said = "the text tower does not know all characters of 2 labels, and tells them apart by the rest only: "
    assert [record.getMessage() for record in caplog.records] == [f"{said}pear 🍐, มะม่วง plum"]
    caplog.clear()
    check_labels(labels("apple", "pear"), minilm.tokenizer({"vocab": 3000}, 16))
    assert not caplog.records


def run(folder: Path, recipe: str) -> int:
    (folder / "shop.toml").write_text(f"{recipe}\n[pack]\n")
    return main([str(folder / "shop.toml"), "--out", str(folder / "out"), "--set", f"data.root={folder / 'shop'}"])


def test_a_run_is_refused_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (
        SHOP.replace("text_options = { vocab = 3000 }\n", "")
        + "[prune]\ntext_options = { vocab = 2000 }\n[distill]\n[quantize]\n[gate]\n"
    )
    folder_shop(tmp_path / "shop", {"café": 12, "cafe": 12})
    assert run(tmp_path, whole) == 2
    said = capsys.readouterr().err
    assert "café = cafe; to it accents" in said or "cafe = café; to it accents" in said
    (tmp_path / "shop" / "café").rename(tmp_path / "shop" / "extraordinarily rhubarb")
    (tmp_path / "out" / ".pupil.json").unlink()
    (tmp_path / "out" / ".work" / "photos.json").unlink()
    (tmp_path / "out" / ".work").rmdir()
    assert run(tmp_path, whole) == 2
    said = capsys.readouterr().err
    assert "minilm needs a vocab of at least 20" in said
    assert "for single characters and 10 words to keep, got 2000; raise vocab" in said
    assert not list((tmp_path / "out" / ".work").glob("0*"))
