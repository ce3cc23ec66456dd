"""Measuring the cells of a plan, one after the other: memory, speed, accuracy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.accuracy import accuracy_of
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Result, evaluate_model
from benchmarks.fresh import in_a_child
from benchmarks.latency import offline, percentile
from benchmarks.metrics import Resampled
from benchmarks.plan import Plan, Subject
from benchmarks.programs import Model
from benchmarks.progress import Tick
from benchmarks.samples import Samples
from benchmarks.shop import shop_values
from benchmarks.stages import end_to_end_calls, frames_of, prepared, stage_calls
from benchmarks.stats import median_interval
from benchmarks.timing import in_turn
from sdk.resize import Frame

Row = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How much is measured. Each clock stops after `seconds` and `runs`; `images` at most are evaluated; `children`:
    fresh processes per cell."""

    seconds: float
    runs: int
    images: int
    children: int


# 400 runs: a 95 % interval of a p99 needs 368.
FULL = Effort(seconds=3.0, runs=400, images=1 << 30, children=3)
QUICK = Effort(seconds=0.2, runs=30, images=100, children=1)


def work_in(plan: Plan) -> float:
    """Units of work that `measure_cells`, `speedups` and `layer_costs` tick together."""
    students = [plan.on(target, "student") for target in plan.targets]
    return 3.0 * len(plan.subjects) + 2.0 * sum(map(bool, students))


def measure_cells(plan: Plan, evalset: EvalSet, effort: Effort, samples: Samples, tick: Tick) -> list[Row]:
    """A row per cell. Raises the SDK's errors."""
    frames = frames_of(evalset)
    rows: list[Row] = []
    results: dict[str, Result] = {}
    for subject in plan.subjects:
        row: Row = {
            "model": subject.who,
            "variant": subject.stored,
            "target": subject.on,
            "compute": subject.compute,
            "bytes": subject.bytes,
            "main": subject is plan.on(subject.on, subject.who)[0],
        }
        row |= _fresh(subject, evalset, effort, samples)
        tick(f"{subject}: memory", 1)
        with subject.open() as model:
            row |= _timed(subject, model, evalset, frames, effort, samples)
            tick(f"{subject}: timing", 1)
            seen = functools.partial(_seen, tick, f"{subject}: accuracy", 1 / len(evalset.images))
            result = evaluate_model(model, evalset, subject.cell, seen)
        results[str(subject)] = result
        row["towers"] = {tower: " ".join(ran) for tower, ran in result.ran_on.items()}
        rows.append(row)
    for subject, row in zip(plan.subjects, rows, strict=True):
        row["accuracy"] = accuracy_of(plan, subject, evalset, results)
        _keep_answers(samples, subject, results[str(subject)])
    return rows


def _seen(tick: Tick, note: str, amount: float, _: str) -> None:
    tick(note, amount)


def _fresh(subject: Subject, evalset: EvalSet, effort: Effort, samples: Samples) -> Row:
    children = [in_a_child(subject, evalset.images[0]) for _ in range(effort.children)]
    found: Row = {}
    for metric in children[0]:
        unit = metric.rsplit("_", 1)[-1].replace("mb", "MB")
        values = samples.add(subject, f"fresh.{metric}", unit, np.array([child[metric] for child in children]))
        found[metric] = asdict(median_interval(values))
    return {"fresh": found}


def _timed(
    subject: Subject, model: Model, evalset: EvalSet, frames: Sequence[Frame], effort: Effort, samples: Samples
) -> Row:
    def clock(calls: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
        return dict(in_turn(calls, min_seconds=effort.seconds, min_runs=effort.runs))

    image = samples.add(subject, "single_stream.image_path", "ms", clock({"image": image_path(model, frames)})["image"])
    row: Row = {"single_stream_ms": {f"p{p}": asdict(percentile(image, p / 100)) for p in (50, 90, 99)}}
    groups = {"stages_ms": stage_calls(model, evalset, frames), "end_to_end_ms": end_to_end_calls(model, evalset)}
    for group, calls in groups.items():
        kept = {n: samples.add(subject, f"{group[:-3]}.{n}", "ms", values) for n, values in clock(calls).items()}
        row[group] = {name: asdict(median_interval(values)) for name, values in kept.items()}
    squares = [prepared(frame, model.bundle) for frame in frames]
    ways = offline(subject, model, squares, seconds=effort.seconds)
    for way, values in ways.items():
        samples.add(subject, "offline.image_path", "images/s", values, way=way)
    rates = {way: asdict(median_interval(values)) for way, values in ways.items()}
    row["offline"] = {"best": max(rates, key=lambda way: rates[way]["value"]), "images_per_second": rates}
    return row


def image_path(model: Model, frames: Sequence[Frame]) -> Callable[[], object]:
    """A decoded frame in memory to a unit embedding, another frame at each call."""
    embed, turn = model.task("embed_images"), cycle(frames)
    return lambda: embed(next(turn))


def _keep_answers(samples: Samples, subject: Subject, result: Result) -> None:
    samples.add(subject, "accuracy.top1", "right", result.correct)
    if result.answered is not None:
        samples.add(subject, "accuracy.answers", "right", result.answered)
    for name, value in shop_values(result).items():
        if not isinstance(value, Resampled):
            samples.add(subject, f"accuracy.{name}", "right", value)
