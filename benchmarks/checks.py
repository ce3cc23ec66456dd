"""What is refused before anything is measured: bundles, evaluation sets and folders that do not go together."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from benchmarks.evalset import EvalSet
from benchmarks.picture import PICTURE
from benchmarks.require import Bar
from benchmarks.shop import why_not
from runtimes import RecipeError
from sdk.bundle import MANIFEST, Bundle

REPORT = "report.json"
OURS = frozenset({REPORT, "report.md", "samples.jsonl", PICTURE})
MADE_BY = "edge-pupil benchmarks"


def check_same_recipe(teacher: Bundle, student: Bundle) -> None:
    """Raises RecipeError, saying what differs, when the two were not made for the same data, labels and answers."""
    data = [bundle.manifest.provenance.get("data") for bundle in (teacher, student)]
    if None not in data and data[0] != data[1]:
        raise _differ(teacher, student, "data", *map(repr, data))
    names = [
        tuple(item.label for item in bundle.manifest.labels.items) if bundle.manifest.labels else None
        for bundle in (teacher, student)
    ]
    if None not in names and names[0] != names[1]:
        raise _differ(teacher, student, "labels", *_first_other(*names))
    answers = [bundle.manifest.fusion.answers if bundle.manifest.fusion else None for bundle in (teacher, student)]
    if None not in answers and answers[0] != answers[1]:
        raise _differ(teacher, student, "answers", *_first_other(*answers))


def _differ(teacher: Bundle, student: Bundle, what: str, one: str, two: str) -> RecipeError:
    return RecipeError(
        f"{teacher.path} is the teacher of another recipe than {student.path}: its {what} are {one}, the student's "
        f"{two}; give two bundles of one run"
    )


def _first_other(one: Sequence[str] | None, two: Sequence[str] | None) -> tuple[str, str]:
    """Of two lists that differ, how many they hold and what stands where they first do."""
    lists = one or (), two or ()
    at, pair = next((at, pair) for at, pair in enumerate(zip_longest(*lists)) if pair[0] != pair[1])
    said = [
        f"{len(names)}, number {at + 1} " + ("missing" if name is None else repr(name))
        for names, name in zip(lists, pair, strict=True)
    ]
    return said[0], said[1]


def check_labels(bundle: Bundle, evalset: EvalSet) -> None:
    """Raises RecipeError when the set has labels that the bundle neither holds nor can make from their prompts."""
    bank = {item.label for item in bundle.manifest.labels.items} if bundle.manifest.labels else set()
    missing = [label for label in evalset.labels if label not in bank]
    if bundle.manifest.text is None:
        wanted = f"; {missing[0]!r} and {len(missing) - 1} more are not in its bank" if missing else ""
        raise RecipeError(
            f"{bundle.path} has no text tower, which retrieval and the labels of {evalset.name} need{wanted}; "
            "give the maker's bundle, not one slimmed with --no-text"
        )
    if not (evalset.label >= 0).any():
        raise RecipeError(f"the evaluation set {evalset.name} knows the label of no image; accuracy needs at least one")


def check_bars(bars: Sequence[Bar], bundles: Mapping[str, Bundle], evalset: EvalSet) -> None:
    """Raises RecipeError for a bar on what these bundles cannot be asked on this set. `bundles`: "teacher" and
    "student"."""
    for bar in bars:
        who, _, name = bar.name.partition(".")
        needed = list(bundles.values()) if name.endswith(".drop") else [bundles[who]] if who in bundles else []
        why = why_not(name, needed, evalset)
        if name.startswith("answers."):
            silent = [bundle for bundle in needed if "ask" not in bundle.manifest.tasks]
            why = f"{silent[0].path} answers none" if silent else None
            why = why if evalset.questions else f"{evalset.name} asks no questions"
        if why:
            raise RecipeError(f"--require {bar.text!r} cannot be measured: {why}; leave it out")


def check_out(out: Path) -> None:
    """Raises RecipeError when `out`, resolved, lies in a bundle, holds what is not ours, or cannot be made."""
    try:
        inside = next((folder for folder in (out, *out.parents) if (folder / MANIFEST).is_file()), None)
        if inside is not None:
            raise RecipeError(f"--out {out} lies inside the bundle {inside}, which is never written to; choose another")
        if out.exists():
            _check_ours(out)
        above = next(folder for folder in out.parents if folder.exists())
        # What will be made later, to see now that it can be: measuring takes long.
        with tempfile.TemporaryDirectory(prefix=".pupil-", dir=above) as folder:
            (Path(folder) / out.relative_to(above)).mkdir(parents=True)
    except OSError as error:
        raise RecipeError(f"--out {out} cannot be written: {error}; choose another") from error


def _check_ours(out: Path) -> None:
    """It would be replaced: refuse what is no report, and one with something beside it."""
    try:
        held = {path.name for path in out.iterdir()}
        ours = not held or json.loads((out / REPORT).read_text(encoding="utf-8")).get("made_by") == MADE_BY
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise RecipeError(f"--out {out} exists and is no report of this command; it is left alone: choose another")
    others = sorted(held - OURS)
    if others:
        raise RecipeError(f"--out {out} holds {others[0]!r} beside the report; move it away, or choose another")
