"""`python -m compress.study NAME --from RUN [--seeds N] [--set step.field=value ...] [--out DIR]`: many students of one
teacher on a short schedule, measured and compared: which settings earn their place.

RUN is a folder of `python -m compress.distill`; its teacher and store are used. The same command goes on where it was
stopped. Exit codes: 0 done, 2 a mistake in what was asked for, 130 interrupted.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.command import Parser, exit_code
from compress.device import CPU
from compress.disk import check_space, disk_needed
from compress.lock import held
from compress.recipe import Recipe, load_recipe, step_name
from compress.steps import WORK, OnStep, StepDone, check_steps, package_version
from compress.study_plan import Job, Study, jobs_of, load_study, row_recipes, share_held_out, teacher_steps
from runtimes import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from compress.study_run import OnStart, StudyRun

GO_ON = "the same command goes on from the last checkpoint"
MARKER = ".study.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: _command(_parser().parse_args(arguments)), GO_ON)


def check_out(out: Path, study: Study) -> None:
    """Raises RecipeError if the folder `out` holds anything but this study."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        found = json.loads((out / MARKER).read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(
            f"--out {out} exists and was not made by this command; choose another --out, or remove it"
        ) from None
    if found != study.name:
        raise RecipeError(f"--out {out} holds the study {found}; choose another --out for {study.name}")


def _command(asked: argparse.Namespace) -> None:
    """All that can be refused is refused before anything is written."""
    study = load_study(asked.study)
    if asked.seeds is not None:
        study = dataclasses.replace(study, seeds=asked.seeds)
    out = (asked.out if asked.out is not None else Path("out") / f"study-{study.name}").resolve()
    recipes, whole = row_recipes(study, asked.set), load_recipe(study.recipe)
    teacher = dataclasses.replace(whole, steps=whole.steps[: teacher_steps(whole)])
    check_out(out, study)
    from rich.console import Console  # here, so that a mistake is told without it

    from compress.study_run import StudyRun, find_teacher, take_teacher

    shared = find_teacher(asked.run, teacher, _data_fields(study, asked.set), _device(recipes))
    check_space(out, disk_needed(dataclasses.replace(whole, dataset=shared.draft.dataset)), "the recipe")
    for recipe in recipes.values():
        check_steps(dataclasses.replace(recipe, dataset=shared.draft.dataset))
    from compress.study_measure import Yardstick  # it loads torch, and the engines

    marker = {"study": study.name, "version": package_version(), "pid": os.getpid()}
    with held(out / MARKER):
        (out / MARKER).write_text(json.dumps(marker), encoding="utf-8")
        shared = take_teacher(shared, asked.run, out, teacher)
        share = max((share_held_out(recipe) for recipe in recipes.values()), default=0.0)
        yardstick = Yardstick(shared.draft, out / WORK / "study", share)
        errors = Console(stderr=True, highlight=False, soft_wrap=True)
        work = StudyRun(shared, out, yardstick, *_told(errors))
        about = {**_about(study, whole, recipes, asked.set), "teacher": shared.header["teacher"], **yardstick.about()}
        jobs = jobs_of(study, recipes, study.seeds, shared.key)
        _show(_measure(work, study, jobs, asked.run, about, errors), out, errors)


def _told(errors: "Console") -> tuple["OnStart", OnStep]:
    """What is said when a student's step begins, and when it is done."""

    def on_start(job: Job, name: str) -> None:
        errors.print(f"{job.row.name}, seed {job.seed}: {name}", style="yellow", markup=False)

    def on_step(done: StepDone) -> None:
        said = "done before" if done.skipped else f"done, {done.draft.seconds[done.name]:.0f} s"
        errors.print(f"{done.name}: {said}", style="green")

    return on_start, on_step


def _measure(
    work: "StudyRun", study: Study, jobs: list[Job], run: Path, about: dict[str, Any], errors: "Console"
) -> dict[str, Any]:
    """Make and measure all students; the files are written again after each, so that there is something to look at."""
    from compress.study_figures import summary
    from compress.study_tables import write_study

    measured: dict[str, list[dict[str, Any]]] = {row.name: [] for row in study.rows}
    work.drop_outdated()
    for row in (each for each in study.rows if each.final):
        figures = work.measure_final(run)
        if figures is None:
            errors.print(f"{row.name}: {run} has published no student yet; left out", style="yellow", markup=False)
        else:
            measured[row.name].append(figures)
    for place, job in enumerate(jobs, 1):
        measured[job.row.name].append({"seed": job.seed, **(work.done(job) or work.measure(job))})
        work.drop_heavy(jobs[:place], [each for each in jobs[place:] if work.done(each) is None])
        write_study({**about, "rows": summary(study, measured, about["data"]["val"])}, work.out)
    work.finish()
    return {**about, "rows": summary(study, measured, about["data"]["val"])}


def _show(table: dict[str, Any], out: Path, errors: "Console") -> None:
    """Write the files, print the table and their paths."""
    from rich.console import Console

    from compress.study_tables import FILES, rich_table, write_study

    no_picture = write_study(table, out)
    shown = Console()
    shown.print(rich_table(table))
    if no_picture:
        errors.print(no_picture, style="yellow")
    for path in (out / name for name in FILES):
        if path.exists():
            shown.print(str(path), soft_wrap=True, highlight=False, markup=False)


def _data_fields(study: Study, asked: Sequence[str]) -> dict[str, Any]:
    """The fields of the data set that --set names: all others are the run's."""
    texts = [text for text in asked if text.strip().startswith("data.")]
    named = {text.partition("=")[0].strip().split(".")[1] for text in texts}
    fields = load_recipe(study.recipe, texts).dataset.fields
    return {name: value for name, value in fields.items() if name in named}


def _device(recipes: Mapping[str, Recipe]) -> str:
    """Where all students are trained: --set device=... is for all rows."""
    return next((recipe.device for recipe in recipes.values()), CPU)


def _about(study: Study, whole: Recipe, recipes: dict[str, Recipe], more: Sequence[str]) -> dict[str, Any]:
    """What study.json says of the study itself. `settings`: row -> the step that is measured, its settings."""
    settings = {}
    for row in study.rows:
        if not row.final:
            texts = [text for each in study.chain(row) for text in each.set]
            settings[row.name] = (step_name(recipes[row.name].steps[-1]), texts)
    return {
        "study": study.name,
        "description": study.description,
        "recipe": whole.name,
        "schedule": [*study.set, *more],
        "seeds": study.seeds,
        "settings": settings,
    }


def _parser() -> argparse.ArgumentParser:
    first = (__doc__ or "").partition("\n\n")[0]
    parser = Parser(prog="python -m compress.study", description=first)
    parser.add_argument("study", help="a study's name (compress/studies), or a .toml file")
    parser.add_argument("--from", dest="run", type=Path, required=True, metavar="RUN", help="the run with the teacher")
    parser.add_argument("--out", type=Path, help="the folder to write (out/study-NAME)")
    parser.add_argument("--seeds", type=int, metavar="N", help="students of each row (as the study says)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="step.field=value", help="change one setting of all rows"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
