"""A study: students of one teacher, each with other settings, on one stated schedule, with several seeds each.

recipe = "grocery"
seeds = 3                                   # of each row: 0, 1, 2
set = ["distill.epochs=4"]                  # the schedule: settings of all rows, as --set takes them
[[rows]]
name = "from scratch"
set = ["prune.inherit=false"]
[[rows]]
name = "int8"
on = "from scratch"                         # with that row's settings, then its own; it is compared with that row
until = "quantize"                          # the step whose result is measured: the base's, or else "distill"
[[rows]]
name = "full length"
final = true                                # what the run published, nothing is trained

A row that is on none is compared with the row before it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.named import did_you_mean, fill
from compress.recipe import Recipe, Step, load_recipe, locate, read_toml, step_name
from compress.steps import step_key
from runtimes import RecipeError

STUDIES = Path(__file__).parent / "studies"
UNTIL = "distill"


@dataclass(frozen=True)
class Row:
    """See above; "" where nothing is said."""

    name: str = ""
    on: str = ""
    set: tuple[str, ...] = ()
    until: str = ""
    final: bool = False


@dataclass(frozen=True)
class Study:
    """A study file. `recipe`: a recipe's name, or a .toml file."""

    name: str = ""
    recipe: str = ""
    description: str = ""
    seeds: int = 3
    set: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        if not self.recipe or not self.rows:
            raise RecipeError('a study needs recipe = "NAME" and at least one [[rows]] with a name')
        if self.seeds < 1:
            raise RecipeError(f"a study needs at least 1 seed, got {self.seeds}")
        names = [row.name for row in self.rows]
        trained = [row.name for row in self.rows if not row.final]
        for row in self.rows:
            if not row.name or names.count(row.name) > 1:
                raise RecipeError(f"every row needs a name of its own, got {row.name!r}; rows: {', '.join(names)}")
            if row.final and (row.set or row.until):
                raise RecipeError(f"the row {row.name!r} is final, as it was published; leave out its set and until")
            if row.on and row.on not in trained:
                raise RecipeError(
                    f"the row {row.name!r} is on {row.on!r}, which is no row that is trained"
                    f"{did_you_mean(row.on, trained)}; those are: {', '.join(trained)}"
                )
        for row in self.rows:
            self.chain(row)

    def chain(self, row: Row) -> tuple[Row, ...]:
        """The rows that `row` is on, the first one first, and itself. Raises RecipeError if it is on itself."""
        found = [row]
        while found[0].on:
            below = next(each for each in self.rows if each.name == found[0].on)
            if below in found:
                order = " on ".join(repr(each.name) for each in (below, *found))
                raise RecipeError(f"rows of a study are on each other in a circle: {order}; one must be on none")
            found.insert(0, below)
        return tuple(found)

    def compared(self, row: Row) -> Row | None:
        """The row that `row` is compared with; None for the first."""
        if row.on:
            return self.chain(row)[-2]
        before = [each for each in self.rows[: self.rows.index(row)] if not each.final]
        return before[-1] if before else None


@dataclass(frozen=True)
class Job:
    """One student: the steps that make it from teacher and store, and the key of each, see `step_key`."""

    row: Row
    seed: int
    steps: tuple[Step, ...]
    keys: tuple[str, ...]


def load_study(name_or_path: str | Path) -> Study:
    """The study of that name (compress/studies/<name>.toml) or file. Raises RecipeError for what is wrong in it."""
    path = locate(name_or_path, STUDIES, ("study", "studies"))
    study: Study = fill(Study, read_toml(path), path.stem)
    recipe = str(path.parent / study.recipe) if study.recipe.endswith(".toml") else study.recipe
    return dataclasses.replace(study, name=study.name or path.stem, recipe=recipe)


def row_recipes(study: Study, asked: Sequence[str] = ()) -> dict[str, Recipe]:
    """Name of each row that is trained -> its recipe, which ends with the step that is measured. `asked`: settings that
    go on top of all (--set), of the student's steps, of the data, or the device.

    Raises RecipeError for settings of anything else, what `load_recipe` raises, and for a step that is not the
    student's, or uses the test split.
    """
    whole = load_recipe(study.recipe)
    students = [step_name(step) for step in whole.steps[teacher_steps(whole) :]]
    for text in (*study.set, *(each for row in study.rows for each in row.set), *asked):
        group = text.partition("=")[0].strip().partition(".")[0]
        if group not in students and not (group in {"data", "device"} and text in asked):
            raise RecipeError(
                f"a study takes teacher and store as they are, and {text!r} would change them; set fields of: "
                f"{', '.join(students)} (python -m compress.cross_validate compares teachers)"
            )
    found = {}
    for row in study.rows:
        if row.final:
            continue
        chain = study.chain(row)
        recipe = load_recipe(study.recipe, (*study.set, *(text for each in chain for text in each.set), *asked))
        until = next((each.until for each in reversed(chain) if each.until), UNTIL)
        known = [name for name, step in _named(recipe, students) if "report" not in getattr(step, "makes", ())]
        if until not in known:
            raise RecipeError(
                f"the row {row.name!r} is measured after {until!r}{did_you_mean(until, known)}; "
                f"steps of the recipe {recipe.name} that it can be measured after: {', '.join(known)}"
            )
        end = next(place for place, step in enumerate(recipe.steps, 1) if step_name(step) == until)
        found[row.name] = dataclasses.replace(recipe, steps=recipe.steps[:end])
    if len({share_held_out(recipe) for recipe in found.values()}) > 1:
        raise RecipeError("rows of a study must hold out the same images: set prune.hold_out for all rows")
    return found


def teacher_steps(recipe: Recipe) -> int:
    """How many of the recipe's first steps make teacher and store. Raises RecipeError if none makes a store."""
    for place, step in enumerate(recipe.steps, 1):
        if "store" in getattr(step, "makes", ()):
            return place
    raise RecipeError(
        f"the recipe {recipe.name} has no step that makes a store: there is nothing for students to share"
    )


def share_held_out(recipe: Recipe) -> float:
    """The share of each label's train images that a row's students do not learn from."""
    return max((float(getattr(step, "hold_out", 0.0)) for step in recipe.steps), default=0.0)


def jobs_of(study: Study, recipes: dict[str, Recipe], seeds: int, key: str) -> list[Job]:
    """All students, seed by seed, so that every row is soon there once. `key`: of teacher and store."""
    found = []
    for seed in range(seeds):
        for row in (each for each in study.rows if not each.final):
            steps, keys = recipes[row.name].steps[teacher_steps(recipes[row.name]) :], [key]
            for step in steps:
                keys.append(step_key(step, seed, keys[-1]))
            found.append(Job(row, seed, steps, tuple(keys[1:])))
    return found


def _named(recipe: Recipe, names: Sequence[str]) -> list[tuple[str, Step]]:
    return [(step_name(step), step) for step in recipe.steps if step_name(step) in names]
