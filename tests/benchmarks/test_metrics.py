from __future__ import annotations

import numpy as np
import pytest

from benchmarks.metrics import Retrieval, coarse_right, question_only
from sdk.label_set import LabelSet


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


def test_drawn_images_are_images_that_are_there_so_often() -> None:
    """Against the same images written out, with junk among them and one query without a relevant image."""
    rng = np.random.default_rng(1)
    label = rng.integers(-1, 4, 40)
    possible = np.eye(5, dtype=bool)[label] | (label < 0)[:, None]
    similar = rng.normal(0, 1, (40, 5))
    for _ in range(5):
        drawn = rng.multinomial(40, np.full(40, 1 / 40))
        rows = np.repeat(np.arange(40), drawn)
        written = _retrieval(similar[rows].tolist(), label[rows].tolist(), possible[rows].tolist())
        weighted = _retrieval(similar.tolist(), label.tolist(), possible.tolist())
        assert weighted.value(drawn) == pytest.approx(written.value(), abs=1e-12)


def test_recall_of_a_query_is_one_relevant_image_among_the_first_k() -> None:
    # Query 0 finds its image third, second without the junk above it; query 1 first; query 2 has no image.
    similar = [[0.9, 0.0, 0.1], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.9, 0.1]]
    possible = [[True, True, False], [False, True, False], [True, False, False], [False, True, False]]
    found = _retrieval(similar, [-1, 1, 0, 1], possible)
    assert found.found_in(1).tolist() == [False, True]
    assert found.found_in(2).tolist() == [True, True]
    assert _retrieval([[0.9, 0.1]], [-1], [[True, True]]).found_in(1).tolist() == []


def test_a_group_is_the_sum_of_its_labels() -> None:
    names, vectors = ("gala", "anjou", "conference", "leek"), np.eye(4, dtype=np.float32)
    grouping = LabelSet(names, vectors, (0,) * 4, ("apple", "pear", "pear", "")).by_group
    scores = np.array([[0.4, 0.3, 0.3, 0.0], [0.4, 0.1, 0.1, 0.4], [0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.0, 0.0]])
    # Pear by 0.6; apple and leek tie, apple is first; pear by 0.5 over leek, which is right; the last has no label.
    assert coarse_right(scores, grouping, np.array([1, 0, 3, -1])).tolist() == [True, True, False]
    assert coarse_right(scores, grouping, np.array([2, 3, 1, -1])).tolist() == [True, False, True]


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
