"""What is measured in pairs, call by call in turn: teacher and student, our layer and the engine alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import Effort, Row, image_path
from benchmarks.eager import TARGET as EAGER
from benchmarks.eager import Side, eager_in_turn
from benchmarks.evalset import EvalSet
from benchmarks.layer import LABELS, layer_cost
from benchmarks.plan import Plan, Subject
from benchmarks.progress import Tick
from benchmarks.samples import Samples
from benchmarks.stages import frames_of, spread
from benchmarks.stats import median_interval
from benchmarks.timing import in_turn
from runtimes import parse_target
from sdk.resize import Frame

Times = NDArray[np.float64]


def speedups(plan: Plan, evalset: EvalSet, effort: Effort, samples: Samples, tick: Tick) -> list[Row]:
    """The student's main cell against float cells of the same target, timed in turn: `f32` and `default` are the
    teacher's fp32 graph computed in f32 and as the engine likes it, `own_f32` the student's own fp32 graph; `eager`, on
    a CPU and where `pt:cpu` is measured too, the teacher's PyTorch program there, see benchmarks/eager.py."""
    frames, rows = frames_of(evalset), []
    programs = plan.on(EAGER, "teacher")
    for target in plan.targets:
        students, teachers = plan.on(target, "student"), plan.on(target, "teacher")
        if not students:
            continue
        floats = [s for s in teachers if s.stored == "fp32"]
        # The engine's default is a cell of its own only where it is other arithmetic.
        rivals = {
            "f32": [s for s in floats if s.precision == "fp32"],
            "default": [s for s in floats if s.precision is None] or floats[:1],
        }
        rivals["own_f32"] = [s for s in students[1:] if s.stored == "fp32" and s.precision == "fp32"]
        done: dict[str, Row] = {}
        for name, found in rivals.items():
            if found:
                key = str(found[0])
                done[key] = done.get(key) or _in_turn(found[0], students[0], frames, effort, samples)
                rows.append({"against": name, **done[key]})
        if programs and parse_target(target).device == "cpu":
            rows.append({"against": "eager", **_eager(programs[0], students[0], evalset, effort, samples)})
        tick(f"{target}: teacher and student in turn", 1)
    return rows


def _in_turn(a: Subject, b: Subject, frames: Sequence[Frame], effort: Effort, samples: Samples) -> Row:
    with a.open() as one, b.open() as two:
        calls = {"a": image_path(one, frames), "b": image_path(two, frames)}
        times = in_turn(calls, min_seconds=effort.seconds, min_runs=effort.runs)
    return _row(a, b, times["a"], times["b"], samples)


def _eager(a: Subject, b: Subject, evalset: EvalSet, effort: Effort, samples: Samples) -> Row:
    one, two = (Side(each.bundle, each.on, each.precision, each.programs) for each in (a, b))
    times = eager_in_turn(one, two, spread(evalset.images), seconds=effort.seconds, runs=effort.runs)
    return _row(a, b, *times, samples)


def _row(a: Subject, b: Subject, slow: Times, fast: Times, samples: Samples) -> Row:
    for subject, partner, values in ((a, b, slow), (b, a, fast)):
        samples.add(subject, "paired.image_path", "ms", values, partner=str(partner))
    return {
        "target": b.on,
        "slow": {"model": a.who, "variant": a.stored, "compute": a.compute},
        "fast": {"model": b.who, "variant": b.stored, "compute": b.compute},
        "slow_ms": asdict(median_interval(slow)),
        "fast_ms": asdict(median_interval(fast)),
        "speedup": asdict(median_interval(slow / fast)),
    }


def layer_costs(plan: Plan, evalset: EvalSet, effort: Effort, samples: Samples, tick: Tick) -> list[Row]:
    """What our layer costs on each CPU engine that opens the student; medians of paired differences, microseconds."""
    frame, rows = frames_of(evalset)[0], []
    for target in plan.targets:
        students = plan.on(target, "student")
        if not students:
            continue
        if parse_target(target).device == "cpu":
            cost = layer_cost(students[0], frame, seconds=effort.seconds, runs=effort.runs)
            row: Row = {"target": target, "variant": students[0].stored, "compute": students[0].compute}
            for name, values in (("embed_images_us", cost.embed_images_us), ("labels_us", cost.labels_us)):
                row[name] = asdict(median_interval(samples.add(students[0], f"layer.{name}", "us", values)))
            rows.append({**row, "labels": LABELS})
        tick(f"{target}: our layer", 1)
    return rows
