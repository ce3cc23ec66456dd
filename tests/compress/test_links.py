"""A file in two places: one on the disk where it can be, else a copy."""

import os
from pathlib import Path

import pytest

from compress.links import link


def test_a_link_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    link(source, tmp_path / "link")
    assert (tmp_path / "link").samefile(source)

    def refused(*_: object) -> None:
        raise OSError("this disk has no links")

    monkeypatch.setattr(os, "link", refused)
    link(source, tmp_path / "copy")
    assert not (tmp_path / "copy").samefile(source)
    assert (tmp_path / "copy").read_bytes() == b"weights"
