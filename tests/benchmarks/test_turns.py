"""Which way round the paired figures are, told by a side that is made slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import layer
from benchmarks.cells import Effort
from benchmarks.plan import Plan, Subject, make_plan
from benchmarks.programs import Model
from benchmarks.samples import Samples
from benchmarks.stages import frames_of
from benchmarks.turns import speedups
from sdk import Student
from sdk.bundle import open_bundle
from tests.evalsets import colour_evalset

NAP = 0.003  # seconds, much more than a call of these towers


class Slow(Subject):
    """A subject whose every task takes NAP longer."""

    def open(self) -> Model:
        model = super().open()
        task = model.task
        model.task = lambda name: _slow(task(name))  # type: ignore[method-assign]
        return model


def _slow(call: Callable[..., Any]) -> Callable[..., Any]:
    def late(*arguments: object) -> Any:
        time.sleep(NAP)
        return call(*arguments)

    return late


@pytest.fixture(scope="module")
def plan(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    bundle = open_bundle(colours)
    folder = tmp_path_factory.mktemp("slim")
    return make_plan({"teacher": bundle, "student": bundle}, ["ort:cpu"], colours, folder)


@pytest.mark.parametrize("slow", ["teacher", "student"])
def test_a_speedup_is_above_1_where_the_teacher_is_slower(plan: Plan, tmp_path: Path, slow: str) -> None:
    subjects = tuple(Slow(**vars(s)) if s.who == slow else s for s in plan.subjects)
    effort, samples = Effort(seconds=0.0, runs=20, images=9, children=1), Samples("m", {})
    rows = speedups(Plan(plan.targets, subjects, ()), colour_evalset(tmp_path), effort, samples, lambda *_: None)
    (row,) = (row for row in rows if row["against"] == "f32")
    assert (row["slow"]["model"], row["fast"]["model"]) == ("teacher", "student")
    times = {"teacher": row["slow_ms"]["value"], "student": row["fast_ms"]["value"]}
    assert times[slow] > 1e3 * NAP
    assert row["speedup"]["value"] > 2 if slow == "teacher" else row["speedup"]["value"] < 0.5


def test_our_layer_costs_what_it_takes_longer(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classify = layer._classify
    monkeypatch.setattr(Student, "embed_images", _slow(Student.embed_images))
    monkeypatch.setattr(
        layer, "_classify", lambda student, n: _slow(classify(student, n)) if n > 1 else classify(student, n)
    )
    frame = frames_of(colour_evalset(tmp_path))[0]
    cost = layer.layer_cost(plan.subjects[-1], frame, seconds=0.0, runs=20)
    for values in (cost.embed_images_us, cost.labels_us):
        assert 0.9e6 * NAP < np.median(values) < 20e6 * NAP
