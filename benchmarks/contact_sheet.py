"""`python -m benchmarks.contact_sheet`: a picture of test photos with a student's answers, right and wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

import sdk
from benchmarks.contact_drawing import Photo, draw, small
from benchmarks.evalset import EvalSet, read_evalset
from benchmarks.evaluate import add_labels
from benchmarks.progress import Tick, bar
from benchmarks.stats import wilson
from runtimes import PupilError, RecipeError, Unavailable
from sdk.tasks import Answer

KINDS = (".jpg", ".jpeg", ".png")
MOST = 20  # rows, and columns


@dataclass(frozen=True)
class Seen:
    """A photo, its label, and what the student answered. Right or wrong goes by the label, as top-1 does, also where
    the answer is called none of these."""

    path: Path
    truth: str
    answer: Answer

    @property
    def right(self) -> bool:
        return self.answer.label == self.truth


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: python -m benchmarks.contact_sheet --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input, in one line."""
    try:
        asked = _parse(arguments)
        _run(asked)
    except PupilError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m benchmarks.contact_sheet", description=__doc__)
    parser.add_argument("--bundle", required=True, help="the student's bundle: its folder, or a bare name")
    parser.add_argument("--eval", required=True, type=Path, help="the evaluation folder of its run")
    parser.add_argument("--out", required=True, type=Path, help="the picture: a file that ends in .jpg or .png")
    parser.add_argument("--on", metavar="TARGET", help="ov:cpu, ort:cpu, ...; default: the first that opens")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="which photos are drawn")
    parser.add_argument("--wrong", type=int, metavar="N", help="show N wrong ones; default: as many as chance draws")
    asked = parser.parse_args(arguments)
    for name in ("rows", "columns"):
        if not 1 <= getattr(asked, name) <= MOST:
            parser.error(f"--{name} must be 1 to {MOST}, got {getattr(asked, name)}")
    if asked.seed < 0:
        parser.error(f"--seed must be 0 or more, got {asked.seed}")
    if asked.out.suffix.lower() not in KINDS:
        parser.error(f"--out {asked.out} must end in one of: {', '.join(KINDS)}")
    if not asked.out.absolute().parent.is_dir():
        parser.error(f"--out {asked.out}: there is no folder {asked.out.absolute().parent}; make it first")
    return asked


def _run(asked: argparse.Namespace) -> None:
    try:
        import matplotlib  # noqa: F401  # before the work, not after it
    except ImportError as error:
        raise Unavailable(f"the picture needs matplotlib ({error}); run: pip install 'edge-pupil[bench]'") from error
    evalset = read_evalset(asked.eval)
    with sdk.load(asked.bundle, on=asked.on, budget_s=0) as student, bar(len(evalset.images)) as tick:
        seen = look(student, evalset, tick)
        name, ran = student.bundle.manifest.name, student.ran_on["image"]
    chosen = choose(seen, asked.rows * asked.columns, asked.wrong, asked.seed)
    lines = [
        f"{name} on {ran.target} ({ran.compute}): {summary(seen, evalset)}",
        how_chosen(seen, chosen, asked.wrong, asked.seed),
    ]
    picture = draw([_cell(each) for each in chosen], asked.columns, lines, asked.out.suffix.lower())
    _write(asked.out, picture)
    print("\n".join([*lines, str(asked.out)]))


def look(student: sdk.Student, evalset: EvalSet, tick: Tick) -> list[Seen]:
    """The student's answer, among the labels of the set, to every photo whose label is known. Raises RecipeError for a
    set without any, and the SDK's errors."""
    known = np.flatnonzero(evalset.label >= 0)
    if not len(known):
        raise RecipeError(f"the evaluation set {evalset.name} knows the label of no image; there is nothing to show")
    add_labels(student, evalset)
    found = []
    for index in known:
        (answer,) = student.classify(evalset.images[index], list(evalset.labels))
        assert isinstance(answer, Answer)
        found.append(Seen(evalset.images[index], evalset.labels[evalset.label[index]], answer))
        tick("photos", 1)
    return found


def choose(seen: Sequence[Seen], count: int, wrong: int | None, seed: int) -> list[Seen]:
    """`count` photos drawn at random, in random order: with `wrong`, so many wrong ones and the others right.

    Raises RecipeError when there are too few.
    """
    if count > len(seen):
        raise RecipeError(f"{count} photos are to be shown, but {len(seen)} have a label; lower --rows or --columns")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(seen)).tolist()
    if wrong is None:
        return [seen[index] for index in order[:count]]
    good, bad = ([index for index in order if seen[index].right is right] for right in (True, False))
    least, most = max(0, count - len(good)), min(count, len(bad))
    if not least <= wrong <= most:
        raise RecipeError(
            f"--wrong {wrong} of {count} photos cannot be shown: of {len(seen)} the student got {len(bad)} wrong; "
            f"give {least} to {most}"
        )
    kept = [*bad[:wrong], *good[: count - wrong]]
    return [seen[kept[place]] for place in rng.permutation(count)]


def summary(seen: Sequence[Seen], evalset: EvalSet) -> str:
    """How many of all photos are right, with the 95 % interval, and how many were called none of these all the same."""
    share = wilson(np.array([each.right for each in seen]))
    low, value, high = (f"{100 * number:.1f}" for number in (share.low, share.value, share.high))
    right = sum(each.right for each in seen)
    refused = sum(each.right and not each.answer.known for each in seen)
    more = f"; {refused:,} of these below the threshold, so called none of these" if refused else ""
    return f"{right:,} of {len(seen):,} {evalset.split} photos of {evalset.name} right, {value} % [{low}, {high}]{more}"


def how_chosen(seen: Sequence[Seen], chosen: Sequence[Seen], wrong: int | None, seed: int) -> str:
    """How the photos of the sheet came about, and how its share of wrong ones compares with that of all."""
    bad, all_bad = (sum(not each.right for each in group) for group in (chosen, seen))
    share = f"{100 * all_bad / len(seen):.1f} % of all are wrong"
    if wrong is None:
        return f"shown: {len(chosen)} drawn at random (seed {seed}), {bad} of them wrong; {share}"
    return f"shown: {len(chosen) - bad} right and {bad} wrong, as was asked for, drawn at random (seed {seed}); {share}"


def _cell(each: Seen) -> Photo:
    """Made small here, one by one: a photo of a dozen megapixels is a lot of memory, two dozen times."""
    said = f"{each.answer.label} {100 * each.answer.score:.0f} %"
    said = said if each.answer.known else f"none of these ({said})"
    mark = "wrong" if not each.right else "right" if each.answer.known else "refused"
    return small(sdk.read_frame(each.path)), [said] if each.right else [said, f"is: {each.truth}"], mark


def _write(out: Path, picture: bytes) -> None:
    """Whole or not at all."""
    beside = None
    try:
        with tempfile.NamedTemporaryFile(dir=out.absolute().parent, prefix=".pupil-", delete=False) as file:
            beside = Path(file.name)
            file.write(picture)
        beside.chmod(0o644)
        beside.replace(out)
    except OSError as error:
        raise RecipeError(f"--out {out} cannot be written: {error}; choose another") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
