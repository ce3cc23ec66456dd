"""`python -m compress.distill [RECIPE] [--out DIR] [--set step.field=value ...] [--resume]`: a teacher in, a measured
int8 student out.

Exit codes: 0 done, 1 the student lost more than its recipe allows, 2 a mistake in what was asked for (one line says
which), 130 interrupted.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from compress.data import open_dataset
from compress.recipe import Recipe, load_recipe
from compress.steps import package_version, run_steps
from runtimes import GateFailed, PupilError, RecipeError

MARKER = ".pupil.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    asked = _parser().parse_args(arguments)
    # Threads that wait by spinning take the cores from each other as soon as anything else runs: a training step was
    # seen to take 5.3 s beside another job, 0.6 s with this, against 0.36 and 0.5 s alone. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        recipe = load_recipe(asked.recipe, asked.set)
        out = asked.out if asked.out is not None else Path("out") / recipe.name
        open_dataset(recipe.dataset.name, recipe.dataset.fields).check()
        check_out(out, asked.resume)
        check_space(out, recipe.disk_mb)
        claim(out, recipe)
        _run(recipe, out, asked.resume, errors)
    except GateFailed as error:
        errors.print(f"gate: {error}", style="red", markup=False)
        return 1
    except PupilError as error:
        errors.print(f"error: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted; the same command with --resume goes on after the last finished step", markup=False)
        return 130
    return 0


def check_out(out: Path, resume: bool) -> None:
    """Raises RecipeError if the folder `out` is not ours, or is ours and `resume` is not set."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARKER).is_file():
        raise RecipeError(f"--out {out} exists and was not made by this command; choose another --out, or remove it")
    if not resume:
        raise RecipeError(f"--out {out} holds an earlier run; add --resume to go on with it, or choose another --out")


def check_space(out: Path, disk_mb: int) -> None:
    """Raises RecipeError if the disk of `out` has less than `disk_mb` MB (1e6 bytes) left."""
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e6
    if free < disk_mb:
        raise RecipeError(
            f"the recipe needs {disk_mb} MB of disk, {there} has {free:.0f} MB free; make room or choose another --out"
        )


def claim(out: Path, recipe: Recipe) -> None:
    """Make the folder and mark it as ours. Raises RecipeError if it cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        record = {"recipe": recipe.name, "seed": recipe.seed, "version": package_version()}
        (out / MARKER).write_text(json.dumps(record), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot write into --out {out}: {error.strerror}; choose another --out") from error


def _run(recipe: Recipe, out: Path, resume: bool, errors: Console) -> None:
    def on_step(name: str, seconds: float, before: bool) -> None:
        errors.print(f"{name}: {'done before' if before else 'done'}, {seconds:.0f} s", style="green")

    draft = run_steps(recipe, out, resume, on_step)
    from compress.report import write_report  # reads bundles: heavy, and only now needed

    Console().print(write_report(draft, recipe))


def _parser() -> argparse.ArgumentParser:
    first = (__doc__ or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m compress.distill", description=first)
    parser.add_argument("recipe", nargs="?", default="easy_vqa", help="a recipe's name, or a .toml file (easy_vqa)")
    parser.add_argument("--out", type=Path, help="the folder to write (out/RECIPE)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="step.field=value", help="change one setting; may be repeated"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an earlier run of the same --out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
