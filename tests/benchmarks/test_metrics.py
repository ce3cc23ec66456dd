from __future__ import annotations

import numpy as np
import pytest

from benchmarks.metrics import Retrieval, question_only


def _retrieval(similarity: list[list[float]], label: list[int], possible: list[list[bool]] | None = None) -> Retrieval:
    """A retrieval over given similarities (images x queries): one-hot queries read them off."""
    images = np.array(similarity, np.float32)
    labels = np.array(label, np.int64)
    known = np.eye(images.shape[1], dtype=bool)[labels] if possible is None else np.array(possible)
    return Retrieval(images, np.eye(images.shape[1], dtype=np.float32), labels, known)


def test_average_precision_by_hand() -> None:
    # Query 0: images ranked 0, 2, 1 with relevant 0 and 1: (1/1 + 2/3) / 2. Query 1: image 2 ranks second: 1/2.
    found = _retrieval([[0.9, 0.1], [0.2, 0.9], [0.5, 0.5]], [0, 0, 1])
    assert found.mean_average_precision() == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)


def test_perfect_ranking_is_one() -> None:
    assert _retrieval([[1, 0], [0.9, 0.1], [0, 1]], [0, 0, 1]).mean_average_precision() == 1


def test_junk_images_are_left_out_of_the_ranking() -> None:
    # Image 1 might be of class 0 or 1: it stands above the relevant image, and must not count against either query.
    similar = [[0.5, 0.0], [0.9, 0.9], [0.0, 0.5]]
    possible = [[True, False], [True, True], [False, True]]
    assert _retrieval(similar, [0, -1, 1], possible).mean_average_precision() == 1
    ruled_out = [[True, False], [False, False], [False, True]]
    assert _retrieval(similar, [0, -1, 1], ruled_out).mean_average_precision() == 0.5


def test_weights_repeat_images() -> None:
    similar = [[0.9, 0.1], [0.2, 0.9], [0.5, 0.5]]
    twice = _retrieval([*similar, similar[2]], [0, 0, 1, 1])
    weighted = _retrieval(similar, [0, 0, 1])
    assert weighted.mean_average_precision(np.array([1, 1, 2])) == pytest.approx(
        twice.mean_average_precision(), abs=1e-12
    )


def test_drop_of_the_same_ranking_is_nothing() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)
    good = np.eye(3)[label] + rng.normal(0, 0.4, (60, 3))
    bad = np.eye(3)[label] + rng.normal(0, 2.0, (60, 3))
    one, two = _retrieval(good.tolist(), label.tolist()), _retrieval(bad.tolist(), label.tolist())
    none, lost = one.drop_to(one), one.drop_to(two)
    assert (none.value, none.low, none.high) == (0, 0, 0)
    assert 0 < lost.low < lost.value < lost.high


def test_question_only_uses_the_most_frequent_answer() -> None:
    train = [("is it red?", "yes"), ("is it red?", "no"), ("is it red?", "no"), ("what is it?", "circle")]
    right = question_only(train, [("is it red?", "no"), ("is it red?", "yes"), ("new?", "no"), ("what is it?", "x")])
    assert right.tolist() == [True, False, True, False]
