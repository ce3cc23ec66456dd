"""The students of a study, one after the other, in DIR/.work/study: steps by their key, so that students share what
they have in common, and a killed study goes on where it was."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.attempt import read_record, write_record
from compress.data import open_dataset
from compress.draft import Draft
from compress.installed import environment
from compress.prepared import drop_unfinished
from compress.recipe import Recipe, Step, step_name
from compress.steps import DONE, WORK, OnStep, on_key, read_step, run_from, step_folder
from compress.steps_from import MARKER, check_run, take_steps
from compress.study_plan import Job
from runtimes import GateFailed, RecipeError
from sdk.bundle import MANIFEST, sha256_of

if TYPE_CHECKING:
    from compress.study_measure import Yardstick

TRAINING = "distill: train"  # whose pace is told
HEAVY = ("graphs", "bundles")  # what steps make that is large, and soon made again
OnStart = Callable[[Job, str], None]


@dataclasses.dataclass(frozen=True)
class Shared:
    """Teacher and store. `key`: the run's, of the step that made the store. `header`: the store's, see there."""

    key: str
    draft: Draft
    header: Mapping[str, Any]


def find_teacher(run: Path, recipe: Recipe, data: Mapping[str, Any], device: str) -> Shared:
    """Teacher and store of the run's folder. `recipe`: its steps up to the store; `data`: fields of the data set that
    are others now; `device`: where students are trained. Writes nothing.

    Raises RecipeError for a folder that holds no run, or one of another recipe, not so far yet, damaged, or of other
    data; what the data set's `check` raises.
    """
    check_run(run, "--from")
    made = read_record(run / MARKER).get("recipe")
    if made != recipe.name:
        raise RecipeError(
            f"--from {run} is a run of the recipe {made!r}, and this study is of {recipe.name!r}; give a run of that"
        )
    found = []
    for number, step in enumerate(recipe.steps, start=1):
        done = read_step(run / WORK / step_folder(number, step), run.resolve())
        if done is None:
            raise RecipeError(
                f"--from {run} has no finished [{step_name(step)}], or not all of its files as they were made; "
                "finish it: the command that made it, with --resume"
            )
        found.append(done)
    key, draft = found[-1]
    spec = dataclasses.replace(draft.dataset, fields={**draft.dataset.fields, **data})
    dataset = open_dataset(spec.name, spec.fields)
    dataset.check()
    header = read_record(draft.need("store", "study") / "header.json")
    if header.get("data") != dataset.fingerprint():
        raise RecipeError(
            f"the data {dict(spec.fields)} is not what --from {run} was made of; set its fields by --set data.FIELD="
        )
    return Shared(on_key(key, device), dataclasses.replace(draft, dataset=spec, device=device), header)


def take_teacher(shared: Shared, run: Path, out: Path, recipe: Recipe) -> Shared:
    """The same teacher and store in the folder `out`, in place of others that it has; as links, where the disk can."""
    for number, step in enumerate(recipe.steps, start=1):
        name = Path(WORK) / step_folder(number, step)
        same = read_record(out / name / DONE) == read_record(run / name / DONE)
        if not same or read_step(out / name, out) is None:
            shutil.rmtree(out / name, ignore_errors=True)
    take_steps(run, out, recipe)
    return dataclasses.replace(shared, draft=Draft.from_json(shared.draft.to_json(), out))


class StudyRun:
    """The work of one study in the folder `out`. What was measured of a student is kept there, under its key."""

    def __init__(self, shared: Shared, out: Path, yardstick: Yardstick, on_start: OnStart, on_step: OnStep) -> None:
        self._shared, self._yardstick, self._said = shared, yardstick, (on_start, on_step)
        self.out, self._work = out, out / WORK / "study"
        for folder in (self._work / "steps", self._work / "rows"):
            folder.mkdir(parents=True, exist_ok=True)

    def drop_outdated(self) -> None:
        """Remove finished steps of other code, versions or engines, which fit no key any more, and what killed calls
        left. Those of other settings stay: the next call may ask for them again."""
        for path in (self._work / "steps").iterdir():
            made_by = read_record(path / DONE).get("made_by")
            if made_by is not None and made_by != environment():
                shutil.rmtree(path)
        drop_unfinished(self.out)
        for path in (*self._work.glob("*student-*"), *self._work.glob(".teacher-*")):
            shutil.rmtree(path)

    def done(self, job: Job) -> dict[str, Any] | None:
        """The job's figures, if they were measured under its key."""
        record = read_record(self._file(job.keys[-1]))
        return record if record.get("key") == job.keys[-1] else None

    def measure(self, job: Job) -> dict[str, Any]:
        """Make the student, or as much of it as is not there yet, and measure it; a student that the gate refuses has
        the reason, `why`, and no figures. Raises what steps raise."""
        start = dataclasses.replace(self._shared.draft, seed=job.seed, seconds={}, metrics={}, pace={})
        steps = self._work / "steps"

        def folder_of(_: int, step: Step, key: str) -> Path:
            return steps / _folder_name(step, key)

        def on_start(name: str, why: str) -> None:
            self._said[0](job, f"{name} {why}".strip())

        try:
            after = run_from(start, self._shared.key, job.steps, folder_of, True, self._said[1], on_start)
        except GateFailed as error:
            return self._write(job.keys[-1], {"why": str(error)})
        figures = self._yardstick.student(after, job.keys[-1])
        for left in self._work.glob(f"student-{job.keys[-1][:16]}*"):
            shutil.rmtree(left)
        return self._write(job.keys[-1], {**figures, "seconds": dict(after.seconds), **_pace(after)})

    def measure_final(self, run: Path) -> dict[str, Any] | None:
        """The figures of the student that a run published, on validation photos: it may have learnt from all others.
        None if there is none yet."""
        bundle, report = run / "student", run / "report.json"
        if not (bundle / MANIFEST).is_file() or not report.is_file():
            return None
        key = f"{sha256_of(bundle / MANIFEST)}-{environment()}"
        record = read_record(self._file(key))
        if record.get("key") == key:
            return record
        said, teacher = read_record(report), self._shared.draft.seconds
        seconds = {name: spent for name, spent in said.get("seconds", {}).items() if name not in teacher}
        pace = said.get("training", {}).get(TRAINING, {})
        names = {"step_seconds": "seconds_per_step", "images_per_second": "images_per_second"}
        trained = {name: pace[key] for name, key in names.items() if key in pace}
        return self._write(key, {**self._yardstick.bundle(bundle, only_val=True), "seconds": seconds, **trained})

    def drop_heavy(self, done: Sequence[Job], left: Sequence[Job]) -> None:
        """Remove the graphs and bundles of measured students that no student needs which is still to come."""
        needed = {key for job in left for key in job.keys}
        for job in done:
            for step, key in zip(job.steps, job.keys, strict=True):
                if key not in needed and set(HEAVY) & set(getattr(step, "makes", ())):
                    shutil.rmtree(self._work / "steps" / _folder_name(step, key), ignore_errors=True)

    def finish(self) -> None:
        """Remove what only training needs: all students are measured."""
        shutil.rmtree(self._work.parent / "images", ignore_errors=True)

    def _file(self, key: str) -> Path:
        return self._work / "rows" / f"{key[:16]}.json"

    def _write(self, key: str, figures: dict[str, Any]) -> dict[str, Any]:
        record = {"key": key, **figures}
        write_record(self._file(key), record)
        return record


def _folder_name(step: Step, key: str) -> str:
    return f"{step_name(step)}-{key[:16]}"


def _pace(after: Draft) -> dict[str, float]:
    """Seconds per step of distilling and images per second, if the student was distilled."""
    pace = after.pace.get(TRAINING)
    return {"step_seconds": pace.seconds, "images_per_second": pace.batch / pace.seconds} if pace else {}
