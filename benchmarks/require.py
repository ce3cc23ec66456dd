"""Bars on the figures of a report: `student.zero_shot.drop <= 1.0`, or with `@ov:cpu` on one target only."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.eager import TARGET as EAGER
from benchmarks.shop import IN_ONE, SHOP, drop_name
from runtimes import RecipeError

_EACH = {
    "zero_shot.top1": "zero-shot top-1 accuracy, per cent",
    "answers.accuracy": "questions answered rightly, per cent",
    "map": "text-to-image mean average precision, 0..1",
    "latency.p50_ms": "single-stream time of the image path, median, ms",
    "latency.p90_ms": "the same, 90th percentile",
    "latency.p99_ms": "the same, 99th percentile",
    "throughput": "offline images per second, the best way",
    "load_ms": "load in a fresh process, ms",
    "first_call_ms": "first call in a fresh process, ms",
    "memory_mb": "peak resident memory in a fresh process, MB",
    "bytes": "size on disk of what the target needs",
    **{name: f"{title}, {'0..1' if name in IN_ONE else 'per cent'}" for name, title in SHOP.items()},
}
_STUDENT = {
    "zero_shot.drop": "points of top-1 lost to the teacher on the same target",
    "answers.drop": "points of answers lost to the teacher on the same target",
    "map_drop": "mAP (0..1) lost to the teacher on the same target",
    **{
        drop_name(name): f"{'0..1' if name in IN_ONE else 'points'} lost to the teacher of: {title}"
        for name, title in SHOP.items()
    },
    "class_lost": "net images lost by the class that lost most, of those that lost significantly (exact McNemar, Holm)",
    "speedup.f32": "times faster than the teacher's fp32 graph computed in f32",
    "speedup.default": "times faster than the teacher's fp32 graph as the engine likes it",
    "speedup.eager": "times faster than the teacher as a PyTorch program, operator by operator (wants --on pt:cpu)",
    "speedup.own_f32": "times faster than the student's own fp32 graph computed in f32",
}
_LAYER = {
    "embed_images_us": "microseconds that embed_images adds to the engine's bare request",
    "labels_us": "microseconds that 1,000 labels add to one",
}
# Every name that a bar may use, and what it is.
NAMES: Mapping[str, str] = {
    **{f"student.{name}": what for name, what in {**_EACH, **_STUDENT}.items()},
    **{f"teacher.{name}": what for name, what in _EACH.items()},
    **{f"layer.{name}": what for name, what in _LAYER.items()},
}
_FORM = re.compile(r"\s*(?P<name>[\w.]+)(?:@(?P<on>[\w:.]+))?\s*(?P<op><=|>=|<|>)\s*(?P<limit>\S+)\s*")
_OPS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Bar:
    """One requirement. `on`: a target; None means the worst of all that were measured."""

    text: str
    name: str
    on: str | None
    op: str
    limit: float


@dataclass(frozen=True)
class Outcome:
    """A bar held against a report: whether it is met, and a line that says by how much."""

    bar: Bar
    met: bool
    text: str


def parse_bar(text: str) -> Bar:
    """Parse `NAME[@TARGET] OP NUMBER`. Raises RecipeError, naming the names, for anything else."""
    match = _FORM.fullmatch(text)
    form = "write NAME OP NUMBER, such as 'student.zero_shot.drop <= 1.0', or NAME@ov:cpu OP NUMBER"
    if match is None:
        raise RecipeError(f"--require {text!r} cannot be read; {form}")
    if match["name"] not in NAMES:
        near = ", ".join(name for name in NAMES if name.split(".")[0] == match["name"].split(".")[0]) or ", ".join(
            NAMES
        )
        raise RecipeError(f"--require {text!r}: there is no figure {match['name']!r}; there are: {near}")
    try:
        limit = float(match["limit"])
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise RecipeError(f"--require {text!r}: {match['limit']!r} is no number; {form}")
    return Bar(text, match["name"], match["on"] and match["on"].lower(), match["op"], limit)


def check_targets(bars: Sequence[Bar], targets: Sequence[str]) -> None:
    """Raises RecipeError for a bar on a target, or against one, that is not going to be measured."""
    for bar in bars:
        if bar.name == "student.speedup.eager" and EAGER not in targets:
            raise RecipeError(f"--require {bar.text!r}: the teacher is not measured on {EAGER}; add --on {EAGER}")
        if bar.on is not None and bar.on not in targets:
            raise RecipeError(f"--require {bar.text!r}: {bar.on} is not measured; measured are: {', '.join(targets)}")


def judge(bar: Bar, figures: Mapping[str, Mapping[str, float]]) -> Outcome:
    """Hold a bar against `figures`: name -> target -> value. What was not measured is not met."""
    by_target = figures.get(bar.name, {})
    if bar.on is not None:
        by_target = {on: value for on, value in by_target.items() if on == bar.on}
    if not by_target:
        return Outcome(bar, False, f"{bar.text}: missed, for it was not measured ({NAMES[bar.name]})")
    worst = (max if bar.op in {"<=", "<"} else min)(by_target, key=by_target.__getitem__)
    value = by_target[worst]
    met = _OPS[bar.op](value, bar.limit)
    said = "met" if met else "missed"
    return Outcome(bar, met, f"{bar.text}: {said} by {abs(value - bar.limit):.4g}, it is {value:.4g} on {worst}")
