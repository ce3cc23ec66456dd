"""What our layer costs: the SDK's call minus the engine's own infer request, on the same session, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sdk
from benchmarks.latency import Samples
from benchmarks.plan import Subject
from benchmarks.stages import prepared
from benchmarks.timing import in_turn
from sdk.embed import Embedder
from sdk.labels import LabelBank
from sdk.resize import Frame
from sdk.student import Student
from sdk.tasks import Scene, open_task

LABELS = 1000


@dataclass(frozen=True)
class LayerCost:
    """Microseconds per frame, one sample per turn: `embed_images` on a prepared frame minus the bare request, and
    `classify` with 1,000 labels minus the same with one."""

    embed_images_us: Samples
    labels_us: Samples


def layer_cost(subject: Subject, frame: Frame, *, seconds: float, runs: int) -> LayerCost:
    """Measure it for a bundle on an ONNX engine, batch 1. Raises the SDK's errors."""
    with sdk.load(subject.bundle, on=subject.on, precision=subject.precision) as student:
        square = prepared(frame, student.bundle)
        # The very session of the student: a second one would bring threads of its own that disturb the first's.
        session = student._session("image")
        bare: Callable[[], object] = session.bare({"image": square[None]})  # type: ignore[attr-defined]
        times = in_turn(
            {"bare": bare, "ours": lambda: student.embed_images(square)}, min_seconds=seconds, min_runs=runs
        )
        embed = 1e3 * (times["ours"] - times["bare"])
        one, many = (_classify(student, count) for count in (1, LABELS))
        times = in_turn({"one": lambda: one(square), "many": lambda: many(square)}, min_seconds=seconds, min_runs=runs)
        return LayerCost(embed, 1e3 * (times["many"] - times["one"]))


def _classify(student: Student, count: int) -> Callable[..., object]:
    """`classify` with a bank of `count` labels of its own, over the student's engine."""
    embed = Embedder(student.bundle, student.run)
    labels = LabelBank(student.bundle, embed.texts)
    labels.replace([f"label {index}" for index in range(count)])
    return open_task("classify", Scene(student.bundle, student.run, embed, labels))
