"""What is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Cell, Result
from benchmarks.metrics import Retrieval
from compress.judge import Limits, judge

NAMES = ("red circle", "red square", "blue circle")
STRICT = Limits(drop=1.0, map_drop=0.02, answer_drop=1.0, alpha=0.05)
LOOSE = Limits(drop=50.0, map_drop=1.0, answer_drop=50.0, alpha=0.05)
N = 600  # images, a third of each class; every tenth has no label
LABEL = np.where(np.arange(N) % 10 == 0, -1, np.arange(N) % 3)
ASKED = tuple((i, f"question {q}", ("yes", "no", "red")[(i + q) % 3]) for i in range(N) for q in range(3))


def evalset() -> EvalSet:
    possible = np.eye(3, dtype=bool)[LABEL] | (LABEL < 0)[:, None]
    images = tuple(Path(f"{i}.png") for i in range(N))
    return EvalSet("x", "val", NAMES, {name: (name,) for name in NAMES}, images, LABEL, possible, ASKED)


def result(wrong: np.ndarray | None = None, answered: np.ndarray | None = None, apart: float = 1.0) -> Result:
    """Results that are right but for the images at `wrong`; `apart`: how far the right queries stand out."""
    top1 = np.where(LABEL < 0, 0, LABEL)
    if wrong is not None:
        top1[wrong] = (top1[wrong] + 1) % 3
    queries = np.eye(3, dtype=np.float32)
    images = (apart * queries[np.arange(N) % 3] + (1 - apart) * queries[np.arange(N) % 2]).astype(np.float32)
    known = LABEL >= 0
    right = (top1 == LABEL)[known]
    retrieval = Retrieval(images, queries, LABEL, evalset().possible)
    return Result(Cell("ov:cpu", "int8"), images, queries, top1, right, right, retrieval, 0.0, {}, answered)


def of_class(k: int, count: int) -> np.ndarray:
    return np.flatnonzero(k == LABEL)[:count]


def answers(*wrong: int) -> np.ndarray:
    right = np.ones(len(ASKED), bool)
    right[list(wrong)] = False
    return right


def test_the_same_answers_pass() -> None:
    judged = judge(result(answered=answers()), result(answered=answers()), evalset(), STRICT)
    assert (judged.failures, judged.towers, judged.n) == ((), frozenset(), 540)
    assert judged.drop.value == judged.drop_bootstrap.value == 0
    assert judged.answer_drop is not None
    assert judged.answer_drop.value == 0
    assert {(each.kind, each.name, each.n, each.p) for each in judged.classes} == {
        *(("class", name, 180, 1.0) for name in NAMES),
        *(("answer", name, 600, 1.0) for name in ("yes", "no", "red")),
    }
    figures = judged.metrics()
    assert figures["class_p"] == 1
    assert {"drop", "drop_low", "drop_high", "map_drop_low", "answer_drop_high"} <= figures.keys()


def test_averages_are_held_against_their_limits() -> None:
    spread = np.concatenate([of_class(k, 4) for k in range(3)])  # 12 of 540
    judged = judge(result(), result(spread), evalset(), STRICT)
    assert judged.failures[0] == "ov:cpu lost 2.22 points of top-1 (at most 1)"
    assert judged.towers == {"image"}
    assert judged.lost == set(spread.tolist())
    assert judged.drop_bootstrap.low < judged.drop.value < judged.drop_bootstrap.high
    judged = judge(result(), result(apart=0.2), evalset(), STRICT)
    assert judged.failures == (f"ov:cpu lost {judged.map_drop.value:.4f} of mAP (at most 0.02)",)
    assert judged.towers == {"image", "text"}
    wrong = judge(result(answered=answers()), result(answered=answers(*range(0, 180, 3))), evalset(), STRICT)
    assert wrong.failures[0] == "ov:cpu lost 3.33 points of answers (at most 1)"
    assert wrong.towers == {"image", "text", "fusion"}
    assert wrong.lost == set(range(60))


def test_a_ruined_class_is_found_where_the_average_is_fine() -> None:
    judged = judge(result(), result(of_class(1, 20)), evalset(), LOOSE)
    assert judged.drop.value < 4
    assert judged.failures == ()
    limits = Limits(drop=5.0, map_drop=1.0, answer_drop=5.0, alpha=0.05)
    judged = judge(result(), result(of_class(1, 20)), evalset(), limits)
    assert judged.failures == (
        "ov:cpu lost 11.1 points of the class 'red square' (at most 5; n = 180, 20 images worse and 0 better, "
        "p = 5.7e-06, below 0.05)",
    )
    assert judged.towers == {"image"}
    assert judged.metrics()["class_p"] == pytest.approx(3 * 2**-19)


def test_alpha_zero_tests_no_class() -> None:
    limits = Limits(drop=5.0, map_drop=1.0, answer_drop=5.0, alpha=0.0)
    assert judge(result(), result(of_class(1, 20)), evalset(), limits).failures == ()


def test_a_class_that_may_have_lost_by_chance_passes() -> None:
    limits = Limits(drop=1.0, map_drop=1.0, answer_drop=1.0, alpha=0.05)
    judged = judge(result(), result(of_class(1, 4)), evalset(), limits)
    assert judged.classes[[each.name for each in judged.classes].index("red square")].points > limits.drop
    assert judged.failures == ()


def test_a_class_that_won_is_not_refused() -> None:
    limits = Limits(drop=5.0, map_drop=1.0, answer_drop=5.0, alpha=0.05)
    judged = judge(result(of_class(1, 20)), result(), evalset(), limits)
    assert judged.failures == ()
    assert next(each for each in judged.classes if each.name == "red square").won == 20
    assert judged.metrics()["class_p"] == 1


def test_an_answer_counts_an_image_once() -> None:
    """Three questions of an image that go wrong together are one image that went wrong."""
    asked = tuple((i // 3, "question", "yes") for i in range(300))
    wrong = np.arange(300) >= 15  # five images
    whole = evalset()
    few = EvalSet("x", "val", NAMES, whole.prompts, whole.images, LABEL, whole.possible, asked)
    limits = Limits(drop=100, map_drop=1.0, answer_drop=1.0, alpha=0.05)
    judged = judge(result(answered=np.ones(300, bool)), result(answered=wrong), few, limits)
    yes = next(each for each in judged.classes if each.kind == "answer")
    assert (yes.n, yes.points, yes.lost, yes.won) == (300, 5, 5, 0)
    assert yes.p == pytest.approx(4 * 2**-4, abs=1e-9)  # three classes and one answer are tested
    assert judged.failures == ("ov:cpu lost 5.00 points of answers (at most 1)",)


def test_answers_are_compared_only_where_both_answered() -> None:
    judged = judge(result(answered=answers()), result(), evalset(), STRICT)
    assert judged.answer_drop is None
    assert {each.kind for each in judged.classes} == {"class"}
    assert "answer_drop" not in judged.metrics()


def test_a_ruined_answer_is_found() -> None:
    red = [i for i, (_, _, answer) in enumerate(ASKED) if answer == "red"][:60]
    limits = Limits(drop=5.0, map_drop=1.0, answer_drop=4.0, alpha=0.05)
    judged = judge(result(answered=answers()), result(answered=answers(*red)), evalset(), limits)
    (failure,) = judged.failures
    assert failure.startswith("ov:cpu lost 10.0 points of the answer 'red' (at most 4; n = 600, 60 images worse and 0")
    assert judged.towers == {"image", "text", "fusion"}
