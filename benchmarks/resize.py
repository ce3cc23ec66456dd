"""`python -m benchmarks.resize`: what it costs to bring a 1920 x 1080 frame to the model's size, and what it changes.

The frames are mosaics of photos (benchmarks/mosaics.py). With a bundle the resize is the bundle's, and its embeddings
are compared with those of the reference: the exact mean, or Pillow's resize where the bundle asks for it. With an
evaluation folder, its answers are compared too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

import sdk
from benchmarks.evalset import EvalSet, read_evalset
from benchmarks.evaluate import add_labels
from benchmarks.mosaics import HEIGHT, enlarged, mosaics
from benchmarks.resize_ways import READ, WHOLE, Ways, array_ways, file_ways, reference, wanted
from benchmarks.stats import median_interval, paired_drop
from benchmarks.timing import in_turn, machine, versions
from runtimes import PupilError, RecipeError
from sdk.frames import read_frame
from sdk.manifest import Figure
from sdk.resize import CROPS, MIN_SIZE, RESIZES, Frame, least_side, prepare
from sdk.tasks.classify import scores

AS_THEY_ARE, ENLARGED = "photos as they are", "photos enlarged to 1080 lines"
AS_FILES = "photos enlarged to 1080 lines, saved as JPEG"
TIMED = 8  # different frames that a clock walks through
PACKAGES = ("opencv-python-headless", "pillow", "numpy")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: python -m benchmarks.resize --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input, in one line."""
    try:
        _run(_parse(arguments))
    except PupilError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m benchmarks.resize", description="The resize of 1080p frames: time and error.")
    parser.add_argument("--photos", required=True, type=Path, help="a folder with photos, at any depth")
    parser.add_argument("--bundle", help="whose embeddings are compared: its folder, or a bare name")
    parser.add_argument("--eval", type=Path, help="an evaluation folder, on which answers are compared")
    parser.add_argument("--on", metavar="TARGET", help="ov:cpu, ort:cpu, ...; default: the first that opens")
    parser.add_argument("--size", type=int, default=224, help="the model's, without a bundle")
    parser.add_argument("--resize", choices=RESIZES, help="without a bundle, which has its own; default: area")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each clock runs")
    asked = parser.parse_args(arguments)
    if asked.bundle is not None and asked.resize is not None:
        parser.error("--resize is the bundle's own: leave it out, or --bundle")
    if asked.eval is not None and asked.bundle is None:
        parser.error("--eval needs a bundle that answers: give --bundle too")
    if not MIN_SIZE <= asked.size <= HEIGHT:
        parser.error(f"--size must be {MIN_SIZE} to {HEIGHT}, got {asked.size}")
    return asked


def _run(asked: argparse.Namespace) -> None:
    evalset = None if asked.eval is None else read_evalset(asked.eval)
    frames = mosaics(asked.photos)
    if asked.bundle is None:
        _tell(frames, asked.size, asked.resize or "area", asked.seconds, None)
        return
    with sdk.load(asked.bundle, on=asked.on, budget_s=0) as student:
        spec = student.bundle.manifest.image
        # The crop is the same for all of them and not a copy, so it is no part of the time.
        _tell([cut(frame, spec.crop) for frame in frames], spec.size, spec.resize, asked.seconds, student)
        for name, drop in {} if evalset is None else accuracy(student, evalset).items():
            print(f"{name}: {drop.value:.2f} points of accuracy lost [{drop.low:.2f}, {drop.high:.2f}], n = {drop.n}")


def cut(frame: Frame, crop: str) -> Frame:
    """What a bundle's crop leaves of a frame, before the resize. A crop that comes after it leaves the centred square
    but for a fraction of a pixel, so that is cut."""
    return CROPS.get(crop, CROPS["center"])(frame)


def timings(ways: Ways, seconds: float) -> dict[str, tuple[Figure, Figure]]:
    """Ways in turn: name -> milliseconds, and how many times as fast as the first, the median of each turn's ratio."""
    times = in_turn({name: _walk(calls[:TIMED]) for name, calls in ways.items()}, min_seconds=seconds)
    first = next(iter(times.values()))
    return {name: (median_interval(spent), median_interval(first / spent)) for name, spent in times.items()}


def _walk(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    turn = cycle(calls)

    def call() -> object:
        return next(turn)()

    return call


@contextmanager
def threads(count: int) -> Iterator[None]:
    """OpenCV with so many threads; a setting of the whole process, put back afterwards."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def cosines(student: sdk.Student, ways: Ways, first: str) -> dict[str, NDArray[np.float64]]:
    """Embeddings of each way's N squares against those of the way `first`: name -> cosine (N,)."""
    vectors = {name: student.embed_images([call() for call in calls]) for name, calls in ways.items()}
    there = vectors[first].astype(np.float64)
    return {name: (there * each).sum(axis=1) for name, each in vectors.items()}


def accuracy(student: sdk.Student, evalset: EvalSet) -> dict[str, Figure]:
    """Points of top-1 accuracy that ours loses against the reference on whole photos: on those of a set as they are,
    read by us as the SDK reads files, and enlarged until their short side has 1080 pixels, as frames and as JPEG files.
    Raises RecipeError for a set without a known label, and the SDK's errors.
    """
    spec, known = student.bundle.manifest.image, np.flatnonzero(evalset.label >= 0)
    if not len(known):
        raise RecipeError(f"the evaluation set {evalset.name} knows the label of no image; accuracy needs one")
    how = (spec.size, spec.resize)
    add_labels(student, evalset)
    current = student.labels.current
    bank = current.vectors[[current.names.index(label) for label in evalset.labels]]
    vectors: dict[str, list[NDArray[np.float32]]] = {AS_THEY_ARE: [], ENLARGED: [], AS_FILES: []}
    for index in known:
        whole, ours = (
            cut(read_frame(evalset.images[index], least=least), spec.crop)
            for least in (None, least_side(spec.size, spec.resize))
        )
        large = enlarged(whole, HEIGHT / min(whole.shape[:2]))
        files = file_ways([large], *how)
        for name, pair in (
            (AS_THEY_ARE, [wanted(whole, *how), prepare(ours, *how)]),
            (ENLARGED, [wanted(large, *how), prepare(large, *how)]),
            (AS_FILES, [files[WHOLE][0](), files[READ][0]()]),
        ):
            vectors[name].append(student.embed_images(pair))
    drops = {}
    for name, pairs in vectors.items():
        best, ours = (
            scores(np.stack(rows), bank, student.bundle.manifest.score).argmax(axis=1) == evalset.label[known]
            for rows in zip(*pairs, strict=True)
        )
        drops[name] = paired_drop(best, ours)
    return drops


def _tell(frames: Sequence[Frame], size: int, resize: str, seconds: float, student: sdk.Student | None) -> None:
    """Print the table. A row is a way; columns are times and ratios by number of threads, then cosines."""
    counts = sorted({1, cv2.getNumThreads()})
    print(f"{len(frames)} mosaics to {size} x {size} by {resize}; medians of ways in turn, times as fast as the first")
    installed = ", ".join(f"{name} {number}" for name, number in versions(*PACKAGES).items())
    print(f"[95 %]; {machine()['cpu']}, {installed}\n")
    heads = [f"ms, {n} threads | times as fast" for n in counts] + (["mean cosine | least"] if student else [])
    print(f"| | {' | '.join(heads)} |\n|---|{'---:|' * 2 * len(heads)}")
    of_arrays, of_files = array_ways(frames, size, resize), file_ways(frames, size, resize)
    for ways, first in ((of_arrays, reference(resize)), (of_files, WHOLE)):
        spent = []
        for count in counts:
            with threads(count):
                spent.append(timings(ways, seconds))
        alike = cosines(student, ways, first) if student else {}
        for name in ways:
            cells = [cell for times in spent for cell in _speed(*times[name])]
            if student:
                cells += [f"{alike[name].mean():.4f}", f"{alike[name].min():.4f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()


def _speed(spent: Figure, ratio: Figure) -> tuple[str, str]:
    return f"{spent.value:.2f}", f"{ratio.value:.1f} [{ratio.low:.1f}, {ratio.high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
