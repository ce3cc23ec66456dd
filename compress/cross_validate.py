"""`python -m compress.cross_validate STUDY [--folds N] [--set step.field=value ...] [--out DIR]`: teachers with other
settings, each trained on N - 1 parts of the train and validation photos and measured on the part that is left.

STUDY is a study file (compress/study_plan.py) whose rows set fields of the step that makes the teacher. The test split
is not read. The same command goes on where it was stopped. Exit codes: as of `python -m compress.study`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.attempt import read_record, write_record
from compress.command import Parser, exit_code
from compress.cross_validate_tables import markdown, table_of
from compress.data import open_dataset
from compress.disk import check_space, disk_needed
from compress.draft import DatasetSpec, Draft
from compress.lock import held
from compress.recipe import Recipe, Step, load_recipe, step_name
from compress.steps import WORK, check_corpus, check_steps, on_key, package_version, run_from, step_key
from compress.study import GO_ON, MARKER, check_out
from compress.study_plan import Study, load_study
from runtimes import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

TEACH = "teach"
FILES = ("cross_validation.json", "cross_validation.md")


@dataclass(frozen=True)
class Job:
    """One teacher: a row on one fold. `key`: of its step, see `step_key`."""

    row: str
    recipe: Recipe
    start: str
    key: str


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: _command(_parser().parse_args(arguments)), GO_ON)


def teacher_recipes(study: Study, asked: Sequence[str] = ()) -> dict[str, Recipe]:
    """Name of each row -> its recipe, which ends with the step that makes the teacher. `asked`: settings on top of all.

    Raises RecipeError for a recipe that does not start with [teach], a row that is final, a setting of any other step,
    and what `load_recipe` raises.
    """
    whole = load_recipe(study.recipe)
    if not whole.steps or step_name(whole.steps[0]) != TEACH:
        raise RecipeError(f"the recipe {whole.name} does not start with [{TEACH}]: there is no teacher to compare")
    found = {}
    for row in study.rows:
        if row.final or row.until not in {"", TEACH}:
            raise RecipeError(f"the row {row.name!r} is not of a teacher; leave out its final and until")
        texts = (*study.set, *(text for each in study.chain(row) for text in each.set), *asked)
        for text in texts:
            group = text.partition("=")[0].strip().partition(".")[0]
            if group not in {TEACH, "data", "device"}:
                raise RecipeError(
                    f"cross-validation trains teachers, and {text!r} sets nothing of them; set fields of: {TEACH}, data"
                )
        recipe = load_recipe(study.recipe, texts)
        found[row.name] = dataclasses.replace(recipe, steps=recipe.steps[:1])
    return found


def jobs_of(recipes: dict[str, Recipe], folds: int) -> list[Job]:
    """All teachers, fold by fold, so that every row is soon there once. Looks at the photos, as folding does."""
    found, starts = [], dict[str, str]()
    for fold in range(1, folds + 1):
        for row, recipe in recipes.items():
            job = _on_fold(recipe, f"{fold}/{folds}")
            spec = job.dataset
            if (same := f"{spec} {job.device}") not in starts:
                starts[same] = on_key(open_dataset(spec.name, spec.fields).fingerprint(), job.device)
            found.append(Job(row, job, starts[same], step_key(job.steps[0], job.seed, starts[same])))
    return found


def _on_fold(recipe: Recipe, fold: str) -> Recipe:
    return dataclasses.replace(recipe, dataset=_part(recipe.dataset, fold))


def _part(spec: DatasetSpec, fold: str) -> DatasetSpec:
    """The data set's fold of that name, or with "" the whole."""
    return dataclasses.replace(spec, fields={**spec.fields, "fold": fold})


def measure(job: Job, out: Path, errors: Console) -> dict[str, Any]:
    """Train the job's teacher in the folder `out`, or go on with it, and return its figures: `correct` has a letter per
    photo of the fold, 1 for right, and `val` 1 where the data set has the photo for validation. Kept under the job's
    key; the weights are not."""
    from tokenizers import Tokenizer

    from compress.encode import class_vectors, correct, encode_frames
    from compress.models.dual_encoder import load_model
    from compress.prepared import prepared

    file = out / WORK / "folds" / f"{job.key[:16]}.json"
    record = read_record(file)
    if record.get("key") == job.key:
        return record
    errors.print(f"{job.row}, fold {job.recipe.dataset.fields['fold']}", style="yellow", markup=False)
    folder = file.with_suffix("")

    def folder_of(_: int, step: Step, key: str) -> Path:
        return folder

    draft = Draft(out, out, job.recipe.seed, job.recipe.dataset, device=job.recipe.device)
    draft = run_from(draft, job.start, job.recipe.steps, folder_of, True)
    teacher = draft.need("teacher", "cross_validate")
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    model = load_model(teacher).eval()
    frames = prepared(corpus.val.images, teacher.image.size, out, "cross-validate: read")
    vectors = encode_frames(model, frames, (teacher.image.mean, teacher.image.std))
    classes = class_vectors(model, Tokenizer.from_file(str(teacher.text.tokenizer)), corpus.labels)
    own = set(open_dataset(draft.dataset.name, _part(draft.dataset, "").fields).load().val.images)
    record = {
        "key": job.key,
        "correct": _letters(correct(vectors, classes, corpus.val.label)),
        "val": _letters(path in own for path in corpus.val.images),
        "seconds": draft.seconds[TEACH],
    }
    write_record(file, record)
    shutil.rmtree(folder)
    return record


def _letters(marks: Iterable[Any]) -> str:
    return "".join("1" if mark else "0" for mark in marks)


def _command(asked: argparse.Namespace) -> None:
    """All that can be refused is refused before anything is written."""
    study = load_study(asked.study)
    if not 2 <= asked.folds <= 99:
        raise RecipeError(f"--folds must lie in 2..99, got {asked.folds}")
    out = (asked.out if asked.out is not None else Path("out") / f"cross-validation-{study.name}").resolve()
    recipes = teacher_recipes(study, asked.set)
    check_out(out, study)
    check_space(out, max(map(disk_needed, recipes.values())), "the recipe")
    for recipe in recipes.values():
        check_steps(_on_fold(recipe, f"1/{asked.folds}"))
    from rich.console import Console  # here, so that a mistake is told without it

    marker = {"study": study.name, "version": package_version(), "pid": os.getpid()}
    with held(out / MARKER):
        (out / MARKER).write_text(json.dumps(marker), encoding="utf-8")
        (out / WORK / "folds").mkdir(parents=True, exist_ok=True)
        _measure_all(study, recipes, out, asked.folds, Console(stderr=True, highlight=False, soft_wrap=True))
    shown = Console()
    shown.print((out / FILES[1]).read_text(encoding="utf-8"), soft_wrap=True, markup=False)
    for name in FILES:
        shown.print(str(out / name), soft_wrap=True, highlight=False, markup=False)


def _measure_all(study: Study, recipes: dict[str, Recipe], out: Path, folds: int, errors: Console) -> None:
    """The files are written again after each teacher, so that there is something to look at."""
    for spec in {repr(recipe.dataset): recipe.dataset for recipe in recipes.values()}.values():
        # What is wrong with the photos, before any work: of the whole, and so of each fold.
        getattr(open_dataset(spec.name, _part(spec, "").fields), "verify", lambda out: None)(out)
    for recipe in recipes.values():
        check_corpus(recipe)
    jobs = jobs_of(recipes, folds)
    done: dict[str, list[dict[str, Any]]] = {row.name: [] for row in study.rows}
    for place, job in enumerate(jobs, 1):
        done[job.row].append(measure(job, out, errors))
        if place % len(recipes) == 0:  # the next fold has other photos
            shutil.rmtree(out / WORK / "images", ignore_errors=True)
        table = table_of(study, jobs[0].recipe.name, done, folds)
        for name, content in zip(FILES, (json.dumps(table, indent=1) + "\n", markdown(table)), strict=True):
            (out / name).write_text(content, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    first = (__doc__ or "").partition("\n\n")[0]
    parser = Parser(prog="python -m compress.cross_validate", description=first)
    parser.add_argument("study", help="a study's name (compress/studies), or a .toml file")
    parser.add_argument("--out", type=Path, help="the folder to write (out/cross-validation-NAME)")
    parser.add_argument("--folds", type=int, default=4, metavar="N", help="parts of the photos (4)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="step.field=value", help="change one setting of all rows"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
