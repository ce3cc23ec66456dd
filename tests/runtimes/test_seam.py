"""What every runtime offers, read from its module: engines need not be here for it."""

from __future__ import annotations

import importlib
import inspect

import pytest

import runtimes
from runtimes import Unavailable


@pytest.mark.parametrize("name", runtimes.names())
def test_a_runtime_takes_what_it_is_given(name: str) -> None:
    module = importlib.import_module(f"runtimes.{name}")
    parameters = inspect.signature(module.open_session).parameters.values()
    kinds = {parameter.name: parameter.kind.name for parameter in parameters}
    options = dict.fromkeys(("batch", "precision", "cache_dir", "prefer"), "KEYWORD_ONLY")
    more = {"progress": "KEYWORD_ONLY"} if runtimes.builds(name) else {}
    assert kinds == {"path": "POSITIONAL_OR_KEYWORD", "device": "POSITIONAL_OR_KEYWORD", **options, **more}
    assert module.PACKAGES
    assert isinstance(module.EXTRA, str)


def test_versions_are_those_that_are_installed() -> None:
    assert set(runtimes.versions("ov")) == {"openvino"}
    assert all(version[0].isdigit() for version in runtimes.versions("ov").values())
    with pytest.raises(Unavailable, match="there is no runtime 'nope'; those that exist: "):
        runtimes.versions("nope")


def test_targets_of_one_runtime() -> None:
    here = runtimes.targets()
    for name in ("ov", "ort"):
        assert runtimes.targets(name) == tuple(target for target in here if target.runtime == name)
    assert runtimes.targets("pt", "nope") == ()  # it opens no ONNX, and is none
