"""How much disk a run needs, and whether the disk holds it, said before anything is written."""

import shutil
from pathlib import Path

from compress.data import open_dataset
from compress.recipe import Recipe
from runtimes import RecipeError


def check_space(out: Path, mbytes: float, what: str, chosen_by: str = "--out") -> None:
    """Raises RecipeError if the disk of `out` has less than `mbytes` MB (1e6 bytes) left, which `what` needs."""
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e6
    if free < mbytes:
        raise RecipeError(
            f"{what} needs {mbytes:.0f} MB of disk, {there} has {free:.0f} MB free; make room or choose "
            f"another {chosen_by}"
        )


def disk_needed(recipe: Recipe) -> int:
    """MB (1e6 bytes). Of a data set that counts its images, each is kept at every edge that a step sees it at, see
    compress/prepared.py. Raises what reading the data set's lists raises.
    """
    dataset = open_dataset(recipe.dataset.name, recipe.dataset.fields)
    count: int = getattr(dataset, "count", lambda: 0)()
    size, edges = 0, set()
    for step in recipe.steps:  # a step without a size goes on with that of the step before
        size = getattr(step, "size", 0) or size
        edges.add(size)
        if hasattr(step, "augment"):  # views are cut of larger frames, the student's of its teacher's
            edges.add(step.augment.edge(size))
    return recipe.disk_mb + round(count * 3 * sum(edge**2 for edge in edges) / 1e6)
