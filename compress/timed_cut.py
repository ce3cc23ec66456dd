"""A transformer's image side cut until a frame takes no longer than the user allows: exported and timed on the target,
not counted."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

import runtimes
from benchmarks.stats import median_interval
from benchmarks.timing import in_turn
from compress.candidates import make
from compress.draft import ImageSpec
from compress.export import ImageGraph, Tower, export_graph, save_graph
from compress.graph import tidy
from compress.latency import Latency
from compress.models.dual_encoder import Side
from compress.narrow import inventory, shaped
from compress.shrink import Removal, Trunk, choose, remove, smallest, total
from runtimes import RecipeError, Target
from sdk.bundle import open_bundle

STEP = 7 / 8  # what is left after a round, of the parameters
HALVINGS = 3  # of the last round: more exports, and a finer result
QUANTIZER = "nncf_ptq"
SECONDS, RUNS = 1.0, 50  # at least, for each measurement

Clock = Callable[[Side], float]


@contextmanager
def clock(spec: ImageSpec, target: Target, folder: Path) -> Iterator[Clock]:
    """A clock for sides that see frames as `spec` says: milliseconds, the median, of the int8 graph with one frame, as
    it would be deployed; what it is calibrated on changes no time.

    The graphs are written into `folder`, which must exist, and removed.
    """
    paths = tuple(folder / f"timed.{variant}.onnx" for variant in ("fp32", "int8"))

    def timed(side: Side) -> float:
        export_side(side, spec, paths[0])
        make("image", paths[0], [{"image": _frame(spec.size)}], QUANTIZER, paths[1])
        return time_graph(paths[1], spec.size, target)

    try:
        yield timed
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def time_graph(path: Path, size: int, target: Target) -> float:
    """Milliseconds, the median, of an image graph with one frame of `size` pixels on `target`."""
    frame = _frame(size)
    with runtimes.open_session(target, path) as session:
        spent = in_turn({"image": lambda: session.run({"image": frame})}, min_seconds=SECONDS, min_runs=RUNS)
    return median_interval(spent["image"]).value


def time_packed(folder: Path, target: Target) -> float:
    """The same of a bundle's int8 image graph."""
    bundle = open_bundle(folder)
    graph = bundle.manifest.graphs["image"]["int8"]
    return time_graph(bundle.file(graph.file), bundle.manifest.image.size, target)


def _frame(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)


def export_side(side: Side, spec: ImageSpec, path: Path) -> None:
    """Write the fp32 graph of an image side, as it is deployed."""
    with torch.device("cpu"):
        frames = torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8)
        graph = ImageGraph(copy.deepcopy(side).cpu(), spec.mean, spec.std).eval()
        outputs = ("embedding",) if side.tokens is None else ("embedding", "tokens")
        export_graph(Tower(graph, {"image": frames}, outputs), path)
    model = onnx.load(str(path))
    tidy(model)
    save_graph(model, path)


def check_fastest(side: Side, module: Any, options: Mapping[str, Any], wanted: Latency, timed: Clock) -> None:
    """Raises RecipeError, saying how fast the smallest shape of the side is, if that is not fast enough; `module`,
    `options`: what built its tower. Its weights need not be there."""
    spent = timed(shaped(side, module, options, smallest(inventory(side)))[0])
    if spent > wanted.ms:
        raise _too_slow(wanted, spent)


def meet_latency(trunk: Trunk, wanted: Latency, timed: Clock) -> tuple[Trunk, float]:
    """The trunk of the image side cut until `timed` says at most `wanted.ms`: rounds of `shrink`, each an eighth, then
    as little of the last one as is enough. And what it says of the result, asked once more: of many, the one that was
    just fast enough was lucky.

    Raises RecipeError, saying how fast the smallest shape is, when none is fast enough.
    """
    found: Mapping[str, Trunk] = {"image": trunk}
    last, before, removals = timed(trunk.side), found, list[Removal]()
    while last > wanted.ms:
        aim = math.floor(total(found) * STEP)
        before, removals = found, choose(found, aim, aim)
        if not removals:
            raise _too_slow(wanted, last)
        found = remove(before, removals)
        last = timed(found["image"].side)
    slow, enough = 0, len(removals)
    for _ in range(HALVINGS):
        middle = (slow + enough) // 2
        if middle == slow:
            break
        tried = remove(before, removals[:middle])
        if timed(tried["image"].side) <= wanted.ms:
            found, enough = tried, middle
        else:
            slow = middle
    return found["image"], timed(found["image"].side)


def _too_slow(wanted: Latency, spent: float) -> RecipeError:
    return RecipeError(
        f"prune.latency: {wanted.ms:g} ms on {wanted.target} were asked for, and the smallest shape of the image tower "
        f"takes {spent:.3g} ms; allow more"
    )
