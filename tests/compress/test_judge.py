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


def few(wrong: int, won: int = 0, alpha: float = 0.05, of: int = 60) -> tuple[str, ...]:
    """What is refused on a small shop's photos, `wrong` of which were lost and `won` others won."""
    label = np.arange(of) % 3
    vectors = np.eye(3, dtype=np.float32)
    names = tuple(Path(f"{i}.png") for i in range(of))
    shop = EvalSet("x", "val", NAMES, {name: (name,) for name in NAMES}, names, label, vectors[label] > 0, ())
    before, after = np.ones(of, bool), np.ones(of, bool)
    before[of - won :], after[:wrong] = False, False
    ranked = Retrieval(vectors[label], vectors, label, shop.possible)
    cell = Cell("ov:cpu", "int8")
    sides = [Result(cell, vectors[label], vectors, label, r, r, ranked, 0.0, {}) for r in (before, after)]
    return judge(sides[0], sides[1], shop, Limits(drop=1.0, map_drop=0.02, answer_drop=1.0, alpha=alpha)).failures


def test_a_few_photos_of_a_small_shop_are_noise() -> None:
    assert few(1) == few(4) == (), "4 lost and none won: one-sided p = 1 / 16"
    assert few(5) == ("ov:cpu lost 8.33 points of top-1 (at most 1)",), "p = 1 / 32"
    assert few(8, won=4) == ()
    assert few(9, won=4)[0] == "ov:cpu lost 8.33 points of top-1 (at most 1)", "net as many, whatever else changed"
    assert few(5, of=600) == (), "0.83 points are within the limit"


def test_alpha_says_what_is_noise_and_zero_that_nothing_is() -> None:
    fewest = {alpha: Limits(1, 1, 1, alpha).fewest for alpha in (0.0, 0.01, 0.05, 0.0625, 0.1, 0.5, 0.9)}
    assert fewest == {0.0: 0, 0.01: 7, 0.05: 5, 0.0625: 5, 0.1: 4, 0.5: 2, 0.9: 1}
    assert few(4, alpha=0.1) == ("ov:cpu lost 6.67 points of top-1 (at most 1)",)
    assert few(1, alpha=0.0) == ("ov:cpu lost 1.67 points of top-1 (at most 1)",)


def test_map_may_lose_what_a_bootstrap_cannot_tell_from_nothing() -> None:
    def lost(alpha: float, wrong: int) -> tuple[str, ...]:
        label = np.arange(12) % 3
        vectors = np.eye(3, dtype=np.float32)
        paths = tuple(Path(f"{i}.png") for i in range(12))
        shop = EvalSet("x", "val", NAMES, {name: (name,) for name in NAMES}, paths, label, vectors[label] > 0, ())
        moved = vectors[label].copy()
        moved[:wrong] = vectors[(label[:wrong] + 1) % 3]
        ranked = [Retrieval(images, vectors, label, shop.possible) for images in (vectors[label], moved)]
        right, cell = np.ones(12, bool), Cell("ov:cpu", "int8")
        sides = [Result(cell, vectors[label], vectors, label, right, right, each, 0.0, {}) for each in ranked]
        return judge(sides[0], sides[1], shop, Limits(drop=1.0, map_drop=0.02, answer_drop=1.0, alpha=alpha)).failures

    assert lost(0.05, 1) == ()
    assert "of mAP (at most 0.02)" in lost(0.0, 1)[0]
    assert "of mAP (at most 0.02)" in lost(0.05, 8)[0]


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
