from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from runtimes import BundleError
from sdk.schema import parse


@dataclass(frozen=True)
class Inner:
    size: int
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    sides: tuple[int | None, ...]
    inner: Inner | None = None
    table: Mapping[str, Inner] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def test_reads_every_kind() -> None:
    table = {"a": {"size": 3, "scale": 4}}
    value = {"name": "é", "sides": [1, None], "inner": {"size": 2}, "table": table, "extra": {"x": [True]}}
    assert parse(Outer, json.loads(json.dumps(value)), "it") == Outer(
        "é", (1, None), Inner(2), {"a": Inner(3, 4.0)}, {"x": [True]}
    )
    assert isinstance(parse(Inner, {"size": 1, "scale": 2}, "it").scale, float)
    assert parse(Outer, {"name": "", "sides": [], "inner": None}, "it") == Outer("", ())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "it must be dict, but is list"),
        ({"name": "a"}, "it lacks the key 'sides'"),
        ({"name": "a", "sides": [], "size": 1}, "it has the unknown key 'size'; it takes name, sides, inner, table"),
        ({"name": 1, "sides": []}, "it.name must be str, but is int"),
        ({"name": None, "sides": []}, "it.name must be str, but is NoneType"),
        ({"name": "a", "sides": {}}, "it.sides must be list, but is dict"),
        ({"name": "a", "sides": [1, "2"]}, "it.sides[1] must be int, but is str"),
        ({"name": "a", "sides": [1.0]}, "it.sides[0] must be int, but is float"),
        ({"name": "a", "sides": [True]}, "it.sides[0] must be int, but is True"),
        ({"name": "a", "sides": [], "inner": {"size": 1, "scale": "2"}}, "it.inner.scale must be float, but is str"),
        (
            {"name": "a", "sides": [], "inner": {"size": 1, "scale": False}},
            "it.inner.scale must be float, but is False",
        ),
        ({"name": "a", "sides": [], "table": {"b": {}}}, "it.table.b lacks the key 'size'"),
        ({"name": "a", "sides": [], "extra": []}, "it.extra must be dict, but is list"),
    ],
)
def test_says_where_and_what_is_wrong(value: object, message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        parse(Outer, value, "it")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0"])
def test_a_number_must_be_finite(text: str) -> None:
    """JSON has no bounds: 1e999 is infinity to Python, and 401 digits are a whole number no float can hold."""
    with pytest.raises(BundleError, match=r"it\.scale must be a finite number, but is"):
        parse(Inner, json.loads(f'{{"size": 1, "scale": {text}}}'), "it")
