"""Ours beside others who serve the same checkpoint: each in a process of its own, timed in turn, asked the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_process import PeerProcess
from benchmarks.progress import Tick
from benchmarks.stats import median_interval, wilson
from runtimes import Unavailable

Times = dict[int, NDArray[np.float64]]
Answers = dict[int, NDArray[np.float64]]
_CALLS = 20  # frames after which memory is read: a stream's, not a first frame's


@dataclass(frozen=True)
class Contender:
    """One who answers. `kind`: see `peer_child.Contender`; `path`: what it opens; `precision`: "fp32" to compute in
    f32, None as its engine likes; `bytes`: size on disk; `python`: the interpreter that runs it."""

    name: str
    kind: str
    path: Path
    precision: str | None
    bytes: int
    python: str

    @property
    def ours(self) -> bool:
        """Whether it is a bundle of this project."""
        return self.kind == "ours"


@dataclass(frozen=True)
class Effort:
    """`turns` of the clock; `images` at most, of which answers are compared; `children`: fresh processes per cell."""

    turns: int
    images: int
    children: int


FULL = Effort(turns=60, images=100, children=3)
QUICK = Effort(turns=12, images=20, children=1)


@dataclass
class Measured:
    """`rows`: per contender its figures; `agreement`: per pair of ours and another; `skipped`: name -> why; `samples`:
    lines of raw samples; `versions`: those in any contender's environment."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender],
    frames: Sequence[Path],
    texts: Sequence[str],
    counts: Sequence[int],
    effort: Effort,
    tick: Tick,
) -> Measured:
    """All figures. `frames`: .npy files of uint8 (H, W, 3) RGB; `counts`: numbers of labels, the first of `texts`.

    A contender that does not run is skipped, with its reason. Ticks one unit per contender and two for the rest. Raises
    Unavailable when ours does not run.
    """
    found = Measured()
    memory: dict[str, dict[str, dict[str, Any]]] = {}
    for each in contenders:
        tick(f"{each.name}: memory", 1)
        try:
            memory[each.name] = _memory(each, frames, texts, counts, effort.children, found)
        except Unavailable as error:
            if each.ours:
                raise
            found.skipped[each.name] = str(error)
    here = [each for each in contenders if each.name in memory]
    with ExitStack() as stack:
        opened = {}
        for each in here:
            opened[each.name] = stack.enter_context(PeerProcess(each.python, each.name))
            opened[each.name].ask(_order(each, frames, texts[: max(counts)]))
        tick("answers", 1)
        answers = {name: _answers(process, counts) for name, process in opened.items()}
        tick("timing, in turn", 1)
        times = _in_turn(opened, counts, effort.turns)
    fastest = times[next(each.name for each in here if each.ours)]
    for each in here:
        found.rows.append(_row(each, times[each.name], fastest, memory[each.name]))
        for count, values in times[each.name].items():
            found.samples.append(_sample(each.name, count, "frame", "ms", values))
    found.agreement = [
        _agree(mine, other, answers, count)
        for mine in here
        for other in here
        for count in counts
        if mine.ours and not other.ours
    ]
    return found


def _order(each: Contender, frames: Sequence[Path], texts: Sequence[str]) -> dict[str, Any]:
    paths = {"path": str(each.path.absolute()), "frames": [str(path.absolute()) for path in frames]}
    return {"do": "open", "kind": each.kind, "precision": each.precision, "texts": list(texts), **paths}


def _memory(
    each: Contender,
    frames: Sequence[Path],
    texts: Sequence[str],
    counts: Sequence[int],
    children: int,
    found: Measured,
) -> dict[str, dict[str, Any]]:
    """Per number of labels, of processes that never had another: load to first answer, memory held and at its peak."""
    cells: dict[str, dict[str, Any]] = {}
    for count in counts:
        taken: list[dict[str, float]] = []
        for _ in range(children):
            with PeerProcess(each.python, each.name) as process:
                opened = process.ask(_order(each, frames, texts[:count]))
                found.versions[each.name] = opened["versions"]
                said = process.ask({"do": "memory", "labels": count, "calls": _CALLS})
                taken.append({"load_ms": opened["load_ms"], **said})
        cells[str(count)] = {}
        for metric in taken[0]:
            values = np.array([one[metric] for one in taken], np.float64)
            cells[str(count)][metric] = asdict(median_interval(values))
            found.samples.append(_sample(each.name, count, metric, "ms" if metric == "load_ms" else "MB", values))
    return cells


def _answers(process: PeerProcess, counts: Sequence[int]) -> Answers:
    return {n: np.array(process.ask({"do": "answer", "labels": n})["probabilities"], np.float64) for n in counts}


def _in_turn(opened: Mapping[str, PeerProcess], counts: Sequence[int], turns: int) -> dict[str, Times]:
    """Name -> number of labels -> milliseconds, one sample per turn; all of a turn see the same frame."""
    spent: dict[str, dict[int, list[float]]] = {name: {count: [] for count in counts} for name in opened}
    for turn in range(turns):
        for count in counts:
            for name, process in opened.items():
                spent[name][count].append(process.ask({"do": "time", "turn": turn, "labels": count})["ms"])
    return {name: {count: np.array(ms, np.float64) for count, ms in each.items()} for name, each in spent.items()}


def _row(each: Contender, times: Times, fastest: Times, memory: Mapping[str, Any]) -> dict[str, Any]:
    """`growth`: time with the most labels over that with the fewest; `slower`: over the first of ours; both paired."""
    least, most = min(times), max(times)
    return {
        "name": each.name,
        "ours": each.ours,
        "bytes": each.bytes,
        "ms": {str(count): asdict(median_interval(values)) for count, values in times.items()},
        "growth": asdict(median_interval(times[most] / times[least])),
        "slower": {str(count): asdict(median_interval(values / fastest[count])) for count, values in times.items()},
        "fresh": memory,
    }


def _agree(mine: Contender, other: Contender, answers: Mapping[str, Answers], count: int) -> dict[str, Any]:
    one, two = answers[mine.name][count], answers[other.name][count]
    return {
        "ours": mine.name,
        "other": other.name,
        "labels": count,
        "top1": asdict(wilson(one.argmax(1) == two.argmax(1))),
        "largest": float(np.abs(one - two).max()),
    }


def _sample(name: str, labels: int, metric: str, unit: str, values: NDArray[np.float64]) -> dict[str, Any]:
    rounded = [round(value, 5) for value in values.tolist()]
    return {"contender": name, "labels": labels, "metric": metric, "unit": unit, "samples": rounded}
