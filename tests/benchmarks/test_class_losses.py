from __future__ import annotations

import numpy as np
import pytest

from benchmarks.class_losses import adjusted, class_changes, losses_by_class, most_lost
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Cell, Result
from benchmarks.metrics import Retrieval
from benchmarks.stats import mcnemar

NAMES = ("apple", "leek", "milk")
LABEL = np.concatenate([np.arange(60) % 3, [-1, -1]])


def photos(questions: tuple[tuple[int, str, str], ...] = ()) -> EvalSet:
    possible = np.eye(3, dtype=bool)[LABEL] | (LABEL < 0)[:, None]
    return EvalSet("x", "test", NAMES, {name: (name,) for name in NAMES}, (), LABEL, possible, questions)


def result(*wrong: int) -> Result:
    vectors = np.eye(3, dtype=np.float32)
    right = np.ones(60, bool)
    right[list(wrong)] = False
    retrieval = Retrieval(vectors[LABEL], vectors, LABEL, photos().possible)
    return Result(Cell("ov:cpu", "int8"), vectors[LABEL], vectors, LABEL, right, right, retrieval, 0.0, {})


def test_the_class_that_lost_most_comes_first() -> None:
    leeks = np.flatnonzero(LABEL == 1)
    found = losses_by_class(result(0, 3), result(*leeks[:12], 0, 2), photos())
    assert [(each.name, each.n, each.lost, each.won) for each in found] == [
        ("leek", 20, 12, 0),
        ("milk", 20, 1, 0),
        ("apple", 20, 0, 1),
    ]
    assert [each.points for each in found] == pytest.approx([60, 5, -5])
    assert found[0].p == pytest.approx(3 * mcnemar(12, 0))  # Holm, three classes
    assert [each.p for each in found[1:]] == [1, 1]


def test_the_most_that_a_class_lost_beyond_chance() -> None:
    apples, leeks, milks = (np.flatnonzero(k == LABEL) for k in range(3))
    asked = photos(((0, "is it?", "yes"),))  # questions or none: this is of the labels
    assert most_lost(result(), result(*leeks[:12], *apples[:7]), asked) == 12
    assert most_lost(result(leeks[0]), result(*leeks[1:12], *apples[:9]), asked) == 10  # net: one was won
    assert most_lost(result(), result(*apples[:5], *leeks[:5], *milks[:5]), asked) == 0  # p = 3 / 16 each
    assert most_lost(result(*leeks[:12]), result(), asked) == 0


def test_a_set_with_questions_has_no_such_table() -> None:
    assert losses_by_class(result(), result(0), photos(((0, "is it?", "yes"),))) == ()


def test_an_image_counts_once_however_often_it_was_asked() -> None:
    before, after = np.ones(6, bool), np.array([False, False, True, True, False, True])
    (found,) = class_changes("answer", ["yes"] * 6, np.array([0, 0, 0, 1, 1, 2]), before, after)
    assert (found.n, found.lost, found.won, found.points) == (6, 2, 0, 50)
    assert adjusted([found, found])[0].p == min(1.0, 2 * found.p)
