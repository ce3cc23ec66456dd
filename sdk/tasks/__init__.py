"""What a student can do. Every module of this folder is a task, found by its name: `student.task("classify")`.

A task module has `task(scene) -> callable`. It gets the bundle and `run(graph, feeds)` in its scene, never a runtime.
"""

from __future__ import annotations

import importlib
import operator
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError, Unavailable
from sdk.bundle import Bundle
from sdk.embed import Embedder, Run
from sdk.labels import LabelBank


@dataclass(frozen=True)
class Answer:
    """A frozen result. `label` is the label, group or answer, `score` is in 0..1, but a group's, a sum, may be above 1
    where scores are sigmoids. `unknown` counts tokens of the label's text, or of the question, that the tokenizer did
    not know: above zero, the score rests on a word that the student cannot read. `cut` counts tokens of the question
    that were not read, because it is longer than the bundle's L. `known` is False in all answers about a frame that
    shows none of the labels asked for: its best cosine is below the bundle's threshold. `degraded` says what it ran on
    instead and why, where an engine failed and the policy is to degrade; else it is empty."""

    label: str
    score: float
    unknown: int = 0
    cut: int = 0
    known: bool = True
    degraded: str = ""


@dataclass(frozen=True)
class Scene:
    """What a task works with."""

    bundle: Bundle
    run: Run
    embed: Embedder
    labels: LabelBank


def names() -> tuple[str, ...]:
    """Tasks this SDK knows, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def open_task(name: str, scene: Scene) -> Callable[..., Any]:
    """The task `name` on this scene. Raises Unavailable when bundle or SDK do not have it."""
    offered = scene.bundle.manifest.tasks
    if name not in offered:
        raise Unavailable(f"{scene.bundle.path} was not made for the task {name!r}; it does: {', '.join(offered)}")
    if name not in names():
        raise Unavailable(f"this SDK does not know the task {name!r}; run: pip install -U edge-pupil")
    task: Callable[..., Any] = importlib.import_module(f"sdk.tasks.{name}").task(scene)
    return task


def one_or_many(frames: object) -> tuple[Sequence[object], bool]:
    """Frames as a sequence, and whether one came alone. A list, a tuple or a 4-D array is many.

    Raises FeedError for a generator.
    """
    if isinstance(frames, np.ndarray):  # first: asking whether something is an Iterator costs more
        return (list(frames), False) if frames.ndim == 4 else ([frames], True)
    if isinstance(frames, Iterator):
        raise FeedError(f"wanted a frame or a list of frames, got a {type(frames).__name__}; pass a list: list(frames)")
    return (frames, False) if isinstance(frames, list | tuple) else ([frames], True)


def count_of(k: object) -> int:
    """How many answers are wanted. Raises FeedError for what is no whole number from 1."""
    try:
        count = operator.index(k)  # type: ignore[arg-type]  # NumPy's whole numbers are none of Python's
    except TypeError:
        count = 0
    if count < 1:
        raise FeedError(f"k must be a whole number from 1, but is {k!r}")
    return count


def cosines(queries: NDArray[np.float32], among: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors (N, D) and (K, D) to cosines, float32 (N, K). Equal vectors have equal cosines."""
    # One dot product at a time, not `@`: BLAS rounds by the place in the matrix, so equal labels would not tie.
    found: NDArray[np.float32] = np.vecdot(queries[:, None, :], among)
    return found
