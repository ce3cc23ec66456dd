"""Steps, one file each, found by name: `steps/teach.py` holds the class `Teach`, and `run_steps` drives them.

A step's file imports torch inside functions only: its fields must be checkable in a blink. A step may also have
`check()`, which raises what can be known before any step has run.

Each step writes DIR/.work/NN-name/, built as NN-name.tmp and renamed when done, so a folder without .tmp is whole.
Its step.json holds the key: a hash of everything that decides the result. Same key, same result: --resume skips it.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compress.data import open_dataset
from compress.draft import Draft
from compress.recipe import Recipe, Step, step_name

OnStep = Callable[[str, float, bool], None]
WORK = ".work"
DONE = "step.json"


def run_steps(recipe: Recipe, out: Path, resume: bool = False, on_step: OnStep | None = None) -> Draft:
    """Run the steps of `recipe` in order inside the folder `out` and return the last draft.

    With `resume`, a step that finished before under the same key is skipped; the first one that did not, and all
    after it, run. `on_step(name, seconds, done_before)` is called after each. Raises what the steps raise.
    """
    out = out.resolve()
    draft = Draft(out=out, folder=out, seed=recipe.seed, dataset=recipe.dataset)
    key = open_dataset(recipe.dataset.name, recipe.dataset.fields).fingerprint()
    for step in recipe.steps:
        # What only torch can tell (a tower's options) is asked of all steps before the first one works.
        getattr(step, "check", lambda: None)()
    _clean(out / WORK)
    for number, step in enumerate(recipe.steps, start=1):
        name = step_name(step)
        folder = out / WORK / f"{number:02d}-{name}"
        key = step_key(step, recipe.seed, key)
        done = _finished(folder, out, key) if resume else None
        before = done is not None
        draft = done if done is not None else _run(step, draft, folder, key)
        resume = resume and before  # what follows a step that ran must run too
        if on_step is not None:
            on_step(name, draft.seconds[name], before)
    return draft


def step_key(step: Step, seed: int, previous: str) -> str:
    """sha256 (hex) of all that decides a step's result; `previous` is the key before it (the first: of the data)."""
    config = dataclasses.asdict(step)  # type: ignore[call-overload]
    parts = [package_version(), step_name(step), config, seed, previous]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def package_version() -> str:
    """The version of edge-pupil that is installed, or "clone" for an uninstalled clone."""
    try:
        return version("edge-pupil")
    except PackageNotFoundError:
        return "clone"


def _clean(work: Path) -> None:
    """Remove what an interrupted run left half-written."""
    for left in work.glob("*.tmp"):
        shutil.rmtree(left)


def _finished(folder: Path, out: Path, key: str) -> Draft | None:
    try:
        record = json.loads((folder / DONE).read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        draft = Draft.from_json(record["draft"], out)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # unreadable is the same as not done
    return draft if all(path.exists() for path in draft.paths()) else None


def _run(step: Step, draft: Draft, folder: Path, key: str) -> Draft:
    name, building = step_name(step), folder.with_name(folder.name + ".tmp")
    building.mkdir(parents=True)
    started = time.perf_counter()
    after = step.run(dataclasses.replace(draft, folder=building))
    seconds = {**after.seconds, name: round(time.perf_counter() - started, 2)}
    after = dataclasses.replace(after, seconds=seconds).moved(building, folder)
    (building / DONE).write_text(json.dumps({"key": key, "draft": after.to_json()}), encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    building.replace(folder)
    return after
