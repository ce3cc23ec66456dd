"""`python -m compress.distill [RECIPE] [--out DIR] [--set step.field=value ...] [--resume] [--steps-from DIR]
[--ablate] [--accept-licence]`: a teacher in, a measured int8 student out.

Exit codes: 0 done, 1 the student lost more than its recipe allows, 2 a mistake in what was asked for (one line says
which), 130 interrupted.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from compress.command import Parser, exit_code
from compress.disk import check_space, disk_needed
from compress.lock import held
from compress.processes import everywhere, is_main, join, leave, on_main
from compress.recipe import Recipe, load_recipe, step_name
from compress.report import PUBLISHED, write_report
from compress.steps import StepDone, check_steps, package_version, run_steps
from compress.steps_from import MARKER, check_run, take_steps
from runtimes import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

GO_ON = "the same command with --resume goes on from the last checkpoint"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: _command(_parser().parse_args(arguments)), GO_ON)


def check_last(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe does not end in [pack]: it would train, and have nothing to show."""
    if not recipe.steps or step_name(recipe.steps[-1]) != "pack":
        last = f"ends in [{step_name(recipe.steps[-1])}]" if recipe.steps else "has no steps"
        raise RecipeError(
            f"the recipe {recipe.name} {last}; its last step must be [pack], which measures and publishes"
        )


def check_out(out: Path, resume: bool) -> None:
    """Raises RecipeError if the folder `out` is not ours, or is ours and `resume` is not set."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARKER).is_file():
        raise RecipeError(f"--out {out} exists and was not made by this command; choose another --out, or remove it")
    if not resume:
        raise RecipeError(f"--out {out} holds an earlier run; add --resume to go on with it, or choose another --out")


def claim(out: Path, recipe: Recipe) -> None:
    """Make the folder and mark it as ours, and this process as the one that works in it. Raises RecipeError if it
    cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        record = {"recipe": recipe.name, "seed": recipe.seed, "version": package_version(), "pid": os.getpid()}
        (out / MARKER).write_text(json.dumps(record), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot write into --out {out}: {error.strerror}; choose another --out") from error


def unpublish(out: Path) -> None:
    """Remove bundles, evaluation set and reports of the run before, whole or half-written, so that what lies there is
    of the last finished run.

    Only in a folder that is ours: see `check_out`.
    """
    from compress.ablation import FILES  # here, for it is heavy

    half = [path for name in PUBLISHED for path in (*out.glob(f".{name}-*"), out / f"{name}.tmp")]
    half += out.glob("*.tmp.pt2")
    for path in (*(out / name for name in (*PUBLISHED, *FILES)), *half):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _command(asked: argparse.Namespace) -> None:
    """All that can be refused is refused before anything is written."""
    accepted = ["teach.accept_licence=true"] if asked.accept_licence else []
    recipe = load_recipe(asked.recipe, [*asked.set, *accepted])
    check_last(recipe)
    join(recipe.device)
    out = asked.out if asked.out is not None else Path("out") / recipe.name

    def check() -> None:
        check_out(out, asked.resume)
        check_space(out, disk_needed(recipe), "the recipe")
        if asked.steps_from is not None:
            check_run(asked.steps_from)

    on_main(check)
    everywhere(lambda: check_steps(recipe))
    with ExitStack() as stack:

        def take() -> None:
            stack.enter_context(held(out / MARKER))
            claim(out, recipe)
            if asked.steps_from is not None:
                take_steps(asked.steps_from, out, recipe)

        on_main(take)
        if is_main():
            from rich.console import Console  # here, so that a mistake is told without it

            _run(recipe, out, asked, Console(stderr=True, highlight=False, soft_wrap=True))
        else:
            run_steps(recipe, out, _resumes(asked))
    leave()


def _run(recipe: Recipe, out: Path, asked: argparse.Namespace, errors: "Console") -> None:
    from rich.console import Console

    ablation = None
    if asked.ablate:
        from compress.ablation import Ablation

        ablation = Ablation(out, recipe.name)
    started: list[str] = []

    def on_start(name: str, why: str) -> None:
        if not started:
            unpublish(out)
        started.append(name)
        if why:
            errors.print(f"{name}: {why}", style="yellow")

    def on_step(done: StepDone) -> None:
        seconds = done.draft.seconds[done.name]
        errors.print(f"{done.name}: {'done before' if done.skipped else 'done'}, {seconds:.0f} s", style="green")
        if ablation is not None:
            ablation.add(done)

    shown = Console()
    try:
        table, paths = write_report(run_steps(recipe, out, _resumes(asked), on_step, on_start), recipe)
        shown.print(table)
    finally:  # a refused student's rows are those to look at
        if ablation is not None and ablation.rows:
            shown.print(ablation.table())
    for path in (*paths, *(ablation.files if ablation is not None else ())):
        shown.print(str(path), soft_wrap=True, highlight=False, markup=False)


def _resumes(asked: argparse.Namespace) -> bool:
    return bool(asked.resume or asked.steps_from is not None)


def _parser() -> argparse.ArgumentParser:
    first = (__doc__ or "").partition("\n\n")[0]
    parser = Parser(prog="python -m compress.distill", description=first)
    parser.add_argument("recipe", nargs="?", default="easy_vqa", help="a recipe's name, or a .toml file (easy_vqa)")
    parser.add_argument("--out", type=Path, help="the folder to write (out/RECIPE)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="step.field=value", help="change one setting; may be repeated"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an earlier run of the same --out")
    parser.add_argument(
        "--steps-from", type=Path, metavar="DIR", help="use the finished steps of another run that are the same here"
    )
    parser.add_argument("--ablate", action="store_true", help="measure the model after each step, and print the rows")
    parser.add_argument(
        "--accept-licence", action="store_true", help="use weights that are for research only (teach.source)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
