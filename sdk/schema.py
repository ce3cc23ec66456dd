"""JSON from outside into frozen dataclasses, strictly: a missing, unknown or mistyped key is an error with its path."""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, cast

from runtimes import BundleError

T = TypeVar("T")


def parse(kind: type[T], value: object, where: str) -> T:
    """Build `kind` from JSON `value`; `where` names the place in error texts.

    Understands dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `X | None`, str, int, float (finite), bool and Any.
    Raises BundleError.
    """
    return cast(T, _parse(kind, value, where))


def read_json(text: str) -> object:
    """JSON from outside. Raises ValueError for what is none (NaN is none), or has a key twice; RecursionError for what
    is too deep.

    Parsers differ in which of two equal keys they take, so what was checked might not be what another one reads.
    """
    return json.loads(text, object_pairs_hook=_table, parse_constant=_no_number)


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no number of JSON")


def _table(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r:.60} comes twice")
        table[key] = value
    return table


def _parse(kind: Any, value: object, where: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in {types.UnionType, typing.Union}:
        if value is None and type(None) in arguments:
            return None
        (only,) = (a for a in arguments if a is not type(None))
        return _parse(only, value, where)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(_parse(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is not None and issubclass(origin, Mapping):
        table = _expect(dict, value, where)
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in table.items()}
    if is_dataclass(kind):
        return _dataclass(cast(type, kind), _expect(dict, value, where), where)
    return _scalar(kind, value, where)


def _dataclass(kind: type, table: dict[str, object], where: str) -> object:
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(table.keys() - known.keys())
    if unknown:
        raise BundleError(f"{where} has the unknown key {unknown[0]!r}; it takes {', '.join(known)}")
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    missing = sorted(required - table.keys())
    if missing:
        raise BundleError(f"{where} lacks the key {missing[0]!r}")
    return kind(**{name: _parse(hints[name], item, f"{where}.{name}") for name, item in table.items()})


def _scalar(kind: Any, value: object, where: str) -> object:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:  # NaN, infinity, and whole numbers too large for a float
            raise BundleError(f"{where} must be a finite number, but is {value}")
        return float(value)
    if isinstance(value, bool) and kind is not bool:
        raise BundleError(f"{where} must be {kind.__name__}, but is {value!r}")
    return _expect(kind, value, where)


def _expect(kind: type[T], value: object, where: str) -> T:
    if not isinstance(value, kind):
        raise BundleError(f"{where} must be {kind.__name__}, but is {type(value).__name__}")
    return value
