"""Single-stream time of the image path (a frame in memory to a unit embedding), teacher and student in turn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sdk
from benchmarks.eager import TARGET, Side, eager_in_turn
from benchmarks.evalset import EvalSet
from benchmarks.stats import median_interval
from benchmarks.timing import Paired, paired_latency


def speed(
    bundles: Mapping[str, Path], evalset: EvalSet, engines: Sequence[str], seconds: float, precision: str
) -> list[dict[str, Any]]:
    """`bundles`: of "teacher" and "student". `seconds`: how long each pair is timed. The student runs in `precision`,
    the teacher in f32 and, in a row of its own, in the engine's default arithmetic where that is another.
    """
    frame = sdk.read_frame(evalset.images[0])
    rows = []
    for engine in engines:
        seen = set()
        for asked in ("fp32", None):
            with (
                sdk.load(bundles["teacher"], on=engine, precision=asked) as a,
                sdk.load(bundles["student"], on=engine, precision=precision) as b,
            ):
                compute = a.ran_on["image"].compute
                if compute in seen:
                    continue  # this engine's default is what the graph says
                seen.add(compute)
                one, two = (functools.partial(model.embed_images, frame) for model in (a, b))
                pair = paired_latency(one, two, min_seconds=seconds)
                rows.append(_row(engine, engine, compute, b.ran_on["image"].compute, pair))
    return rows


def eager_speed(
    bundles: Mapping[str, Path],
    program: Path,
    evalset: EvalSet,
    computes: Mapping[str, str],
    seconds: float,
    precision: str,
) -> list[dict[str, Any]]:
    """The same against the teacher's PyTorch image program, see benchmarks/eager.py: a row for each engine of
    `computes`: engine -> what the student computes in there. Raises Unavailable where a process of its own fails."""
    teacher = Side(bundles["teacher"], TARGET, None, {"image": program})
    rows = []
    for engine, compute in computes.items():
        student = Side(bundles["student"], engine, precision)
        a, b = eager_in_turn(teacher, student, evalset.images[:1], seconds=seconds, runs=50)
        pair = Paired(median_interval(a), median_interval(b), median_interval(a / b))
        rows.append(_row(engine, TARGET, "f32", compute, pair))
    return rows


def _row(engine: str, teacher_on: str, teacher: str, student: str, pair: Paired) -> dict[str, Any]:
    """`engine`: the student's, `teacher_on` the teacher's; then what each computes in."""
    return {
        "target": engine,
        "teacher_on": teacher_on,
        "teacher_compute": teacher,
        "student_compute": student,
        "teacher_ms": dataclasses.asdict(pair.a_ms),
        "student_ms": dataclasses.asdict(pair.b_ms),
        "speedup": dataclasses.asdict(pair.ratio),
    }
