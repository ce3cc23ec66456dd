"""What tests of the SDK share: the other kind of bundle, without a fusion tower, and order in who opens first."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdk import attempts
from tests.bundles import build_colour_bundle


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a colour bundle that answers no questions. It is read, never written."""
    return build_colour_bundle(tmp_path_factory.mktemp("bundle") / "plain", asks=False).path


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate in order is waited for, however busy the machine is; tests of just that take this back."""
    monkeypatch.setattr(attempts, "HEAD_START", 600.0)
