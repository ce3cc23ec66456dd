from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtimes import BundleError
from sdk import open_bundle
from sdk.card import MAX_CARD, read_card
from tests.bundles import CARD, damage


def test_a_card_is_read_as_it_was_written(colours: Path) -> None:
    bundle = open_bundle(colours)
    assert bundle.manifest.card == "card.md"
    assert read_card(bundle.file("card.md")) == CARD


def test_a_card_at_the_limit_is_fine(colours: Path, tmp_path: Path) -> None:
    assert open_bundle(damage(colours, tmp_path / "b", {"card.md": b"x" * MAX_CARD})).manifest.card == "card.md"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x" * (MAX_CARD + 1), f"card.md has {MAX_CARD + 1} bytes; at most {MAX_CARD}: shorten it"),
        (b"caf\xe9", "card.md cannot be read as UTF-8: "),
    ],
)
def test_a_card_that_cannot_be_used_is_seen_when_the_bundle_is_opened(
    colours: Path, tmp_path: Path, data: bytes, message: str
) -> None:
    path = damage(colours, tmp_path / "b", {"card.md": data})
    with pytest.raises(BundleError, match=re.escape(f"the model card {path}/{message}")):
        open_bundle(path)


def test_a_card_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"the model card .*nowhere\.md cannot be read as UTF-8: .*; copy the bundle"):
        read_card(tmp_path / "nowhere.md")


def test_a_card_that_is_not_listed(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", change=lambda table: table["files"].pop("card.md"))
    with pytest.raises(BundleError, match=re.escape("uses the file 'card.md' but does not list it under files")):
        open_bundle(path)
