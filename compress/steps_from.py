"""The finished steps of one run in the folder of another: a second student of the same teacher."""

import shutil
from pathlib import Path

from compress.links import link
from compress.recipe import Recipe
from compress.steps import COPY, DONE, WORK, step_folder
from runtimes import RecipeError

MARKER = ".pupil.json"  # in every folder that the command made


def check_run(other: Path, option: str = "--steps-from") -> None:
    """Raises RecipeError if the folder `other`, given as `option`, holds no run of ours."""
    if not (other / MARKER).is_file():
        raise RecipeError(f"{option} {other} holds no run of compress.distill; give the --out of an earlier one")


def take_steps(other: Path, out: Path, recipe: Recipe) -> None:
    """Copy those finished steps of the run `other` that stand in the same place in `recipe` and that `out` does not
    have; as links, where the disk can. `run_steps` then uses those that are the same, and replaces the others."""
    for number, step in enumerate(recipe.steps, start=1):
        name = step_folder(number, step)
        folder, done = out / WORK / name, other / WORK / name
        if (done / DONE).is_file() and not folder.exists():
            building = folder.with_name(name + COPY)
            shutil.rmtree(building, ignore_errors=True)
            shutil.copytree(done, building, copy_function=link)  # nothing writes into a finished step
            building.replace(folder)
