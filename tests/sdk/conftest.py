"""The other kind of bundle: without a fusion tower, so without `tokens`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles import build_colour_bundle


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a colour bundle that answers no questions. It is read, never written."""
    return build_colour_bundle(tmp_path_factory.mktemp("bundle") / "plain", asks=False).path
