"""A recipe: a TOML file that says which data, and which steps with which settings, in order.

name = "easy_vqa"
seed = 0
[data]
name = "easy_vqa"
[teach]            # one table per step, in the order in which they run; fields are those of steps/teach.py
epochs = 8

With `base = "grocery"`, or a .toml file beside it, a recipe is that one but for its name and the settings that it
names itself; it has the same steps.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from compress.data import open_dataset
from compress.device import check_device_name
from compress.draft import DatasetSpec, Draft
from compress.named import did_you_mean, fill, find_class
from runtimes import RecipeError

RECIPES = Path(__file__).parent / "recipes"
TOP = {"name": str, "description": str, "base": str, "seed": int, "disk_mb": int, "device": str}


class Step(Protocol):
    """A frozen dataclass in steps/<name>.py: its fields are its configuration."""

    def run(self, draft: Draft) -> Draft:
        """The draft with this step's files, specs and metrics added; files go into `draft.folder`."""
        ...


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `disk_mb`: free space in MB (1e6 bytes) that a run may need, besides
    the frames of a shop's photos (compress/disk.py). `device`: where torch trains,
    "cpu", "cuda" or "cuda:N".
    """

    name: str
    description: str
    seed: int
    disk_mb: int
    dataset: DatasetSpec
    steps: tuple[Step, ...]
    device: str = "cpu"


def step_name(step: Step) -> str:
    """The name of a step: that of its file ("teach")."""
    return type(step).__module__.rpartition(".")[2]


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name (compress/recipes/<name>.toml) or file, with `step.field=value` overrides applied.

    Raises RecipeError for an unknown recipe, step, data set or field, for a value of the wrong type, and for a
    file that is not TOML. Imports no torch: a typo costs less than a second.
    """
    path = locate(name_or_path)
    table = _with_base(read_toml(path), path)
    for override in overrides:
        _override(table, override)
    top = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    for key, value in top.items():
        if key not in TOP:
            known = ", ".join(TOP)
            raise RecipeError(f"a recipe has no setting {key!r}{did_you_mean(key, TOP)}; settings: {known}")
        if not isinstance(value, TOP[key]) or isinstance(value, bool):
            raise RecipeError(f"{key} must be {TOP[key].__name__}, got {value!r}")
    name = top.get("name", Path(name_or_path).stem)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):  # it names the folder out/NAME
        raise RecipeError(f"a recipe's name is letters, digits, '-' and '_', got {name!r}")
    if top.get("seed", 0) < 0:
        raise RecipeError(f"seed must be 0 or more, got {top['seed']}")
    check_device_name(top.get("device", "cpu"))
    steps = [(key, value) for key, value in table.items() if isinstance(value, Mapping) and key != "data"]
    return Recipe(
        name=name,
        description=top.get("description", ""),
        seed=top.get("seed", 0),
        disk_mb=top.get("disk_mb", 1000),
        dataset=_dataset(table),
        steps=tuple(fill(find_class("compress.steps", key, "step"), value, key) for key, value in steps),
        device=top.get("device", "cpu"),
    )


def locate(name_or_path: str | Path, folder: Path = RECIPES, kind: tuple[str, str] = ("recipe", "recipes")) -> Path:
    """The file of that path, or folder/<name>.toml. Raises RecipeError, calling it `kind`, if there is none."""
    path, (one, many) = Path(name_or_path), kind
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise RecipeError(f"there is no {one} file {path}; give its path, or a name without .toml")
    known = sorted(found.stem for found in folder.glob("*.toml"))
    if str(name_or_path) not in known:
        hint = did_you_mean(str(name_or_path), known)
        raise RecipeError(f"there is no {one} {str(name_or_path)!r}{hint}; {many}: {', '.join(known)}, or a .toml file")
    return folder / f"{name_or_path}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a file. Raises RecipeError if it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error


def _with_base(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """The recipe's table, of the file `path`, on top of that of its `base`, if it has one."""
    base = table.get("base")
    if not isinstance(base, str):
        return table
    below = read_toml(locate(path.parent / base if base.endswith(".toml") else base))
    if "base" in below:
        raise RecipeError(f"the base {base!r} has a base itself; name that one, {below['base']!r}, instead")
    for key, value in table.items():
        if isinstance(value, Mapping) and key not in below:
            raise RecipeError(
                f"{path.name} has a step [{key}] that its base {base!r} lacks; write the recipe out whole"
            )
    return _merged({key: value for key, value in below.items() if key != "name"}, table)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {**below, **above}  # in the order of `below`, which is that of the steps
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping):
            both[key] = _merged(below[key], value)
    return both


def _override(table: dict[str, Any], text: str) -> None:
    """Apply one `step.field=value` (or `seed=3`) to the table, in place."""
    dotted, equals, raw = text.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set wants step.field=value (or seed=3), got {text!r}")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = raw.strip()  # a bare word is a string: --set teach.image=timm_image
    groups = [key for key, found in table.items() if isinstance(found, Mapping)]
    if len(keys) > 1 and keys[0] not in groups:
        hint = did_you_mean(keys[0], groups)
        raise RecipeError(f"--set {text}: this recipe has no step {keys[0]!r}{hint}; it has: {', '.join(groups)}")
    if len(keys) == 1 and keys[0] in groups:
        raise RecipeError(f"--set {text}: {keys[0]!r} is a step; set one of its fields, {keys[0]}.field=value")
    inner = table
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {text}: {key!r} holds a value, not a table of settings")
    inner[keys[-1]] = value


def _dataset(table: Mapping[str, Any]) -> DatasetSpec:
    data = table.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise RecipeError('a recipe needs a [data] table with a name, such as name = "easy_vqa"')
    fields = {key: value for key, value in data.items() if key != "name"}
    open_dataset(data["name"], fields)  # refuses unknown names and fields now, before any work
    return DatasetSpec(data["name"], fields)
