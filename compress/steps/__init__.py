"""Steps, one file each, found by name: `steps/teach.py` holds the class `Teach`, and `run_steps` drives them.

A step's file imports torch inside functions only: its fields must be checkable in a blink. A step may also have
`check()`, which raises what can be known before any step has run: packages that are missing, options of towers; and
`check_corpus(corpus, the steps before it)`, which raises what the data adds to that; and `content()`, a hash of files
that its configuration names and that belong to the key. One that is `distributed` runs on all processes at once, any
other on the main one alone (compress/processes.py).

Each step writes DIR/.work/NN-name/, built as NN-name.tmp and renamed when done, so a folder without .tmp is whole; what
a step refused to let through stays as NN-name.refused. A finished step's step.json holds the key, a hash of everything
that decides the result: data, configuration, seed, our sources, the versions of the packages that make numbers, the
engines of this machine. Same key, same result (but for sums in another order, and BatchNorm's shares of a batch, where
several processes trained, see docs/SCALE.md): --resume skips the step, unless one of the files that it made is no
longer what step.json says of it. A step that was killed finds its checkpoints again (compress/attempt.py).
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

from compress import installed
from compress.attempt import begin, finish, read_record
from compress.data import open_dataset
from compress.device import CPU, check_device, kind
from compress.draft import Draft
from compress.processes import everywhere, gathered, is_main, on_main, world
from compress.recipe import Recipe, Step, step_name
from runtimes import GateFailed, RecipeError
from sdk.bundle import sha256_of

WORK = ".work"
DONE = "step.json"
TMP, REFUSED, COPY = ".tmp", ".refused", ".copy"
OTHER_CODE = "made by other code or versions, again"


@dataclasses.dataclass(frozen=True)
class StepDone:
    """A finished step. `folder`: DIR/.work/NN-name. `key`: see `step_key`. `skipped`: it was done before. `before` and
    `draft`: what it was given, and what it made of that.
    """

    name: str
    folder: Path
    key: str
    skipped: bool
    before: Draft
    draft: Draft


OnStart = Callable[[str, str], None]
OnStep = Callable[[StepDone], None]
FolderOf = Callable[[int, Step, str], Path]


def check_steps(recipe: Recipe) -> None:
    """Refuse what can be known before any step runs; nothing is written.

    Raises RecipeError for a step that needs what none before it makes (`needs`, `makes`), and what the data set's and
    the steps' `check` raise: what only heavy packages can tell; Unavailable for a device that is not here.
    """
    made: set[str] = set()
    for step in recipe.steps:
        missing = [need for need in getattr(step, "needs", ()) if need not in made]
        if missing:
            name, order = step_name(step), ", ".join(step_name(each) for each in recipe.steps)
            raise RecipeError(f"[{name}] needs {missing[0]}, and no step before it makes that; the recipe has: {order}")
        made.update(getattr(step, "makes", ()))
    check_device(recipe.device)
    open_dataset(recipe.dataset.name, recipe.dataset.fields).check()
    for place, step in enumerate(recipe.steps):
        getattr(step, "check", lambda: None)()
        getattr(step, "check_after", lambda steps: None)(recipe.steps[:place])


def check_corpus(recipe: Recipe) -> None:
    """Refuse what the data set's texts tell before any step runs, and after its `verify`. Raises what the steps'
    `check_corpus` raise."""
    asked = [(place, step) for place, step in enumerate(recipe.steps) if hasattr(step, "check_corpus")]
    corpus = open_dataset(recipe.dataset.name, recipe.dataset.fields).load() if asked else None
    for place, step in asked:
        step.check_corpus(corpus, recipe.steps[:place])


def run_steps(
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_start: OnStart | None = None,
) -> Draft:
    """Let the data set look at its files (`verify`, if it has one) and the steps at its texts, then run the steps of
    `recipe` in order inside the folder `out`; returns the last draft. See `run_from` for the rest.
    """
    from compress.prepared import drop_unfinished  # here, for it shows progress, and mistakes are told without that

    out = out.resolve()
    draft = Draft(out, out, recipe.seed, recipe.dataset, device=recipe.device, recipe=recipe.name)

    dataset = open_dataset(recipe.dataset.name, recipe.dataset.fields)
    everywhere(getattr(dataset, "fetch", lambda: None))

    def begin() -> str:
        getattr(dataset, "verify", lambda out: None)(out)
        check_corpus(recipe)
        drop_unfinished(out)
        if not resume:
            _clean(out / WORK, TMP, REFUSED)
        return on_key(dataset.fingerprint(), recipe.device)

    key = on_main(begin)

    def folder_of(number: int, step: Step, _: str) -> Path:
        return out / WORK / step_folder(number, step)

    draft = run_from(draft, key, recipe.steps, folder_of, resume, on_step, on_start)
    on_main(lambda: _clean(out / WORK, TMP, COPY))  # of steps that this recipe does not have
    return draft


def run_from(
    draft: Draft,
    key: str,
    steps: Sequence[Step],
    folder_of: FolderOf,
    resume: bool,
    on_step: OnStep | None = None,
    on_start: OnStart | None = None,
) -> Draft:
    """Run `steps` in order on `draft`, which was made under `key`; returns the last draft. `folder_of(number from 1,
    step, its key)` says where a step's result lies, inside of `draft.out`.

    With `resume`, a step that finished before under the same key is skipped; the first one that did not goes on from
    its checkpoints, if it left any, and all after it run. `on_start(name, why)` is called before each step that really
    runs; `why` is empty unless an earlier result had to be thrown away that the user may expect to see again.
    `on_step` is called after each. Raises what these raise; call `check_steps` before, so that mistakes show before
    any work.
    """
    keep, dataset, device, recipe = resume, draft.dataset, draft.device, draft.recipe
    for number, step in enumerate(steps, start=1):
        name, before = step_name(step), draft
        key = on_main(partial(step_key, step, draft.seed, key, recipe if getattr(step, "named", False) else ""))
        folder = folder_of(number, step, key)
        done, why = on_main(partial(_look, folder / DONE if resume else None, draft.out, key))
        if done is None and on_start is not None:
            on_start(name, why)
        # The data may lie elsewhere than when the step was done: the key knows its content only. So with the GPU, and
        # the name of the recipe.
        here = done and dataclasses.replace(done, dataset=dataset, device=device, recipe=recipe)
        draft = here if here is not None else _together(step, draft, folder, key, keep)
        resume = resume and here is not None  # what follows a step that ran must run too
        if on_step is not None:
            on_step(StepDone(name, folder, key, done is not None, before, draft))
    return draft


def read_step(folder: Path, out: Path) -> tuple[str, Draft] | None:
    """Key and draft of the finished step in `folder` of the run `out`; None if there is none, or it is not whole."""
    record = read_record(folder / DONE)
    key = str(record.get("key"))
    draft, _ = _finished(record, out, key)
    return None if draft is None else (key, draft)


def on_key(key: str, device: str) -> str:
    """The key that steps on a device start from: a GPU's sums are other bits, and which of several decides nothing."""
    return key if device == CPU else f"{key} {kind(device)}"


def step_folder(number: int, step: Step) -> str:
    """The name of the folder of the `number`-th step (from 1) of a recipe."""
    return f"{number:02d}-{step_name(step)}"


def step_key(step: Step, seed: int, previous: str, recipe: str = "") -> str:
    """sha256 (hex) of all that decides a step's result; `previous` is the key before it (the first: of the data).
    `recipe`: its name, for a step that writes it down (`named`)."""
    config = dataclasses.asdict(step)  # type: ignore[call-overload]
    parts = [installed.environment(), step_name(step), config, seed, previous, recipe]
    content = getattr(step, "content", lambda: "")()  # of files that the configuration names
    parts += [content] if content else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def package_version() -> str:
    """The version of edge-pupil that is installed, or "clone" for an uninstalled clone."""
    try:
        return version("edge-pupil")
    except PackageNotFoundError:
        return "clone"


def _clean(work: Path, *endings: str) -> None:
    """Remove the folders that earlier runs left with one of these endings."""
    for ending in endings:
        for left in work.glob(f"*{ending}"):
            shutil.rmtree(left)


def _finished(record: dict[str, Any], out: Path, key: str) -> tuple[Draft | None, Path | None]:
    """The draft of a step that was made under `key` and whose files are still what they were; else the first file of it
    that is not, if that is why."""
    if record.get("key") != key:
        return None, None
    try:
        draft = Draft.from_json(record["draft"], out)
        made = ((out / name, facts) for name, facts in record["files"].items())
        changed = (file for file, facts in made if not file.is_file() or _facts(file) != facts)
        gone = (path for path in draft.paths() if not path.exists())
        lost = next(chain(changed, gone), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None  # unreadable is the same as not done
    return (draft, None) if lost is None else (None, lost)


def _look(file: Path | None, out: Path, key: str) -> tuple[Draft | None, str]:
    """The draft of a step that was finished under `key`, by its record, a file; else why a user may wonder at that."""
    record = read_record(file) if file is not None else {}
    done, lost = _finished(record, out, key)
    other = done is None and record and record.get("made_by") != installed.environment()
    return done, OTHER_CODE if other else f"{lost} is no longer what was made, again" if lost else ""


def _together(step: Step, draft: Draft, folder: Path, key: str, keep: bool) -> Draft:
    """Run a step on the main process; one that is `distributed` on the others as well, which write nothing. All return
    the main one's draft."""
    if world() == 1 or not getattr(step, "distributed", False):
        return on_main(lambda: _run(step, draft, folder, key, keep))
    # Not by `on_main`: what one raises would be sent while the others wait for its gradients. It ends, and so do they.
    if is_main():
        return gathered(_run(step, draft, folder, key, keep))[0]
    step.run(dataclasses.replace(draft, folder=folder.with_name(folder.name + TMP)))
    return gathered(draft)[0]


def _run(step: Step, draft: Draft, folder: Path, key: str, keep: bool) -> Draft:
    name, building, refused = step_name(step), *(folder.with_name(folder.name + end) for end in (TMP, REFUSED))
    earlier = begin(building, key, keep)
    started = time.perf_counter()
    try:
        after = step.run(dataclasses.replace(draft, folder=building))
    except GateFailed as error:
        finish(building, refused)
        kept = "" if refused.name in str(error) else f"; what was refused is kept in {refused}"
        raise GateFailed(f"{error}{kept}") from error
    seconds = {**after.seconds, name: round(earlier + time.perf_counter() - started, 2)}
    made = {path for path in after.paths() if path not in draft.paths() and path != building}
    files = {file: _facts(file) for file in sorted(_files(made))}
    after = dataclasses.replace(after, seconds=seconds).moved(building, folder)
    record = {
        "key": key,
        "made_by": installed.environment(),
        "files": {_moved(file, building, folder).relative_to(draft.out).as_posix(): f for file, f in files.items()},
        "draft": after.to_json(),
    }
    (building / DONE).write_text(json.dumps(record), encoding="utf-8")
    finish(building, folder)
    shutil.rmtree(refused, ignore_errors=True)
    return after


def _files(paths: set[Path]) -> Iterator[Path]:
    """The files among `paths`, and all that lie in the folders among them."""
    for path in paths:
        yield from (found for found in path.rglob("*") if found.is_file()) if path.is_dir() else (path,)


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path


def _facts(file: Path) -> dict[str, Any]:
    """Size in bytes and sha256 (hex) of a file. Raises OSError if it is not there."""
    return {"size": file.stat().st_size, "sha256": sha256_of(file)}
