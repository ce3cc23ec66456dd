"""`python -m compress.epoch_cost RECIPE --from DIR [--set distill.field=value ...] [--epochs N] [--steps N]
[--out FILE] [--require RATIO]`: what an epoch of distilling from a run's store costs beside the same epoch with hard
labels only.

Wanted: at most 1.10 times that, and no network called but the student. With --require the exit code is 1 where the
store costs more than RATIO times the epoch with the same texts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.command import Parser, complain, exit_code
from compress.draft import Draft
from compress.recipe import Recipe, load_recipe, step_name
from compress.steps import WORK, read_step, step_folder
from compress.steps.distill import Distill
from compress.steps_from import check_run
from runtimes import RecipeError

WHAT = {"labels": "the same images and texts", "no_phrases": "without the everyday phrases, which have none"}
PACKAGES = ("edge-pupil", "torch", "timm", "transformers", "numpy")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    missed: list[str] = []
    code = exit_code(lambda: missed.extend(_command(_parser().parse_args(arguments))), "run the same command again")
    for bar in missed:
        complain(bar)
    return code or int(bool(missed))


def ready(recipe: Recipe, run: Path) -> tuple[Distill, Draft]:
    """The recipe's [distill], and what the run in the folder `run` had before it. Writes nothing.

    Raises RecipeError for a recipe without [distill] after other steps, and for a folder that holds no run that has
    come so far.
    """
    check_run(run, "--from")
    for place, (before, step) in enumerate(zip(recipe.steps, recipe.steps[1:], strict=False), start=1):
        if isinstance(step, Distill):
            found = read_step(run / WORK / step_folder(place, before), run.resolve())
            if found is None:
                raise RecipeError(
                    f"--from {run} has no finished [{step_name(before)}], or not all of its files as they were made; "
                    "finish it: the command that made it, with --resume"
                )
            return step, found[1]
    raise RecipeError(f"the recipe {recipe.name} has no [distill] after other steps: there is no epoch to time")


def _command(asked: argparse.Namespace) -> list[str]:
    """The bars that were missed, in words."""
    if asked.epochs < 1 or asked.steps < 0:
        raise RecipeError(f"--epochs must be at least 1 and --steps at least 0, got {asked.epochs} and {asked.steps}")
    distill, draft = ready(load_recipe(asked.recipe, asked.set), asked.run)
    from benchmarks.timing import machine, versions
    from compress.hard_labels import epoch_cost

    found = epoch_cost(distill, draft, asked.epochs, asked.steps)
    print(f"an epoch from the store: {found['seconds']['store']:.1f} s")
    for name, what in WHAT.items():
        ratio = found["ratio"][name]
        print(
            f"with hard labels, {what}: {found['seconds'][name]:.1f} s; "
            f"the store costs {ratio['value']:.3f} times that ({ratio['low']:.3f} to {ratio['high']:.3f})"
        )
    print(f"networks called that are not the student: {found['other_calls']}")
    if asked.out is not None:
        table = {**found, "machine": machine(), "versions": versions(*PACKAGES)}
        asked.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    cost = found["ratio"]["labels"]["value"]
    if asked.require is None or cost <= asked.require:
        return []
    return [f"--require {asked.require:g} was missed: the store costs {cost:.3f} times the epoch with the same texts"]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m compress.epoch_cost", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("recipe", help="a recipe's name, or a .toml file: that of the run")
    parser.add_argument("--from", dest="run", type=Path, required=True, metavar="DIR", help="the --out of the run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="step.field=value", help="change one setting of [distill]"
    )
    parser.add_argument("--epochs", type=int, default=1, help="how many to time (1)")
    parser.add_argument("--steps", type=int, default=0, help="of each epoch, the first so many (0: all)")
    parser.add_argument("--require", type=float, metavar="RATIO", help="exit code 1 if the store costs more")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .json file for the figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
