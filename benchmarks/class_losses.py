"""Which classes lost, by tests that a good average cannot hide from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Result
from benchmarks.stats import holm, mcnemar

ALPHA = 0.05
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ClassLoss:
    """One class, or one answer (`kind`). `points` (0..100): accuracy lost on its `n` samples. `lost` and `won`: images
    that got worse and better. `p`: McNemar's, adjusted for all classes and answers that were tested."""

    kind: str
    name: str
    n: int
    points: float
    lost: int
    won: int
    p: float


def class_changes(
    kind: str, names: Sequence[str], images: NDArray[np.int64], before: Bools, after: Bools
) -> list[ClassLoss]:
    """Per class what changed, p not adjusted yet. `names`: the true class of each sample, `images`: its image.

    An image counts once per class, by whether more of its samples went wrong or right: McNemar's test wants pairs that
    are independent, and questions about one image are not.
    """
    found = []
    names_of = np.array(names)
    change = before.astype(np.int64) - after
    for name in dict.fromkeys(names):
        mine = names_of == name
        lost, won = changed_images(images[mine], before[mine], after[mine])
        points = 100 * float(change[mine].mean())
        found.append(ClassLoss(kind, name, int(mine.sum()), points, lost, won, mcnemar(lost, won)))
    return found


def changed_images(images: NDArray[np.int64], before: Bools, after: Bools) -> tuple[int, int]:
    """How many images got worse and better: those of whose samples more went wrong than right, and the other way round.
    `images`: int64 (n,), the image of each sample."""
    _, place = np.unique(images, return_inverse=True)
    net = np.bincount(place, weights=before.astype(np.int64) - after)
    return int((net > 0).sum()), int((net < 0).sum())


def adjusted(changes: Sequence[ClassLoss]) -> tuple[ClassLoss, ...]:
    """The same with p adjusted for testing all of them (Holm 1979)."""
    pvalues = holm([each.p for each in changes])
    return tuple(dataclasses.replace(each, p=p) for each, p in zip(changes, pvalues, strict=True))


def losses_by_class(teacher: Result, student: Result, evalset: EvalSet) -> tuple[ClassLoss, ...]:
    """What the student lost of each class of a set of photos, the class with the most lost photos first.

    Nothing for a set with questions: its report is about those, and the gate has looked at both.
    """
    if evalset.questions:
        return ()
    losses = _of_labels(teacher, student, evalset)
    return tuple(sorted(losses, key=lambda each: (each.won - each.lost, each.p, -each.points)))


def most_lost(teacher: Result, student: Result, evalset: EvalSet) -> int:
    """Images lost, less images won, of the class that lost most of all that lost significantly; 0 if none did."""
    losses = _of_labels(teacher, student, evalset)
    return max((each.lost - each.won for each in losses if significant(each.p, each.lost, each.won)), default=0)


def significant(p: float, lost: int, won: int) -> bool:
    """Whether a class lost more than chance explains; `p` is adjusted for all classes."""
    return p < ALPHA and lost > won


def _of_labels(teacher: Result, student: Result, evalset: EvalSet) -> tuple[ClassLoss, ...]:
    known = np.flatnonzero(evalset.label >= 0)
    names = [evalset.labels[k] for k in evalset.label[known]]
    return adjusted(class_changes("class", names, known, teacher.correct, student.correct))
