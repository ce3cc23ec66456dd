"""Steps, data sets and towers are found by their FILE NAME, and filled from tables of fields.

There is no registry: `compress/steps/teach.py` holds the class `Teach`, and that is all there is to know. A name that
has no file, or a field the class does not have, is a RecipeError that lists what exists.
"""

import dataclasses
import difflib
import importlib
import pkgutil
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from runtimes import RecipeError


def names_in(package: str) -> list[str]:
    """The modules of `package` (dotted), sorted, without importing any of them."""
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    return sorted(found.name for found in pkgutil.iter_modules([str(folder)]) if not found.name.startswith("_"))


def check_name(package: str, name: str, what: str) -> str:
    """`name` if `package` has a file of that name.

    Raises RecipeError otherwise; `what` says what was looked for ("step").
    """
    known = names_in(package)
    if name not in known:
        raise RecipeError(f"there is no {what} named {name!r}{did_you_mean(name, known)}; {what}s: {', '.join(known)}")
    return name


def find_class(package: str, name: str, what: str) -> type[Any]:
    """The class of the file `name` in `package`: easy_vqa.py holds EasyVqa.

    Raises RecipeError if there is no such file.
    """
    check_name(package, name, what)
    module = importlib.import_module(f"{package}.{name}")
    found: type[Any] = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    return found


def fill(cls: type[Any], table: Mapping[str, Any], where: str) -> Any:
    """An instance of the frozen dataclass `cls` with the fields of `table`; `where` names the table in messages.

    Raises RecipeError for a field that does not exist, has the wrong type, or is no finite number.
    """
    hints = get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"[{where}] has no field {key!r}{did_you_mean(key, known)}; fields: {', '.join(known)}")
        values[key] = _typed(hints[key], value, f"{where}.{key}")
    return cls(**values)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'teach'?)`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`: a TOML list becomes a tuple, an int may stand for a float."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        hint = next(arg for arg in args if arg is not type(None))
        return _typed(hint, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return fill(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(args[0], item, where) for item in value)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    # bool is an int to Python; `epochs = true` is still a mistake.
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = hint.__name__ if isinstance(hint, type) else str(hint)
    raise RecipeError(f"{where} must be {wanted}, got {value!r} ({type(value).__name__})")


def _finite(value: float, where: str) -> float:
    # An int beyond what a float holds, or nan, would go through every comparison of a step's own checks.
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise RecipeError(f"{where} must be a finite number, got {value}")
    return float(value)
