"""What tests in several folders share: one tiny bundle, built once. It is read, never written; copy it to damage it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import build_colour_bundle


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the colour bundle (tests/bundles.py)."""
    return build_colour_bundle(tmp_path_factory.mktemp("bundle") / "colours").path
