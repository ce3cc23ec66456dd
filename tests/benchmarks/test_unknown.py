from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.evalset import EvalSet
from benchmarks.unknown import NoneOfThese, none_of_these


def by_pairs(known: np.ndarray, unknown: np.ndarray) -> float:
    """The definition: every pair, ties half."""
    wins = (known[:, None] > unknown).sum() + 0.5 * (known[:, None] == unknown).sum()
    return float(wins / (len(known) * len(unknown)))


def photos(label: np.ndarray, count: int, grouped: bool = True) -> EvalSet:
    names = tuple(f"class {index}" for index in range(count))
    possible = np.eye(count, dtype=bool)[label]
    paths = tuple(Path(f"{index}.png") for index in range(len(label)))
    groups = ("all",) * count if grouped else ()
    return EvalSet("x", "test", names, {name: (name,) for name in names}, paths, label, possible, (), groups)


def vectors(count: int, photos: int, dim: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bank (count, dim), photos near their class, and their classes."""
    rng = np.random.default_rng(5)
    bank = rng.normal(0, 1, (count, dim))
    label = rng.integers(0, count, photos)
    images = bank[label] + rng.normal(0, 0.8, (photos, dim))
    bank, images = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (bank, images))
    return bank.astype(np.float32), images.astype(np.float32), label


def test_auroc_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(0)
    best = rng.integers(0, 6, (3, 40)) / 5  # many ties
    left_out = rng.random((3, 40)) < 0.3
    expected = [by_pairs(row[~out], row[out]) for row, out in zip(best, left_out, strict=True)]
    found = NoneOfThese(best, left_out)
    assert found.auroc() == pytest.approx(np.mean(expected), abs=1e-12)
    drawn = rng.multinomial(40, np.full(40, 1 / 40))
    rows = np.repeat(np.arange(40), drawn)
    assert found.auroc(drawn) == pytest.approx(NoneOfThese(best[:, rows], left_out[:, rows]).auroc(), abs=1e-12)
    figure = found.figure()
    assert figure.low < figure.value < figure.high
    assert figure.n == 40


def test_auroc_of_what_is_apart_and_of_what_is_not() -> None:
    left_out = np.array([[False, False, True]])
    assert NoneOfThese(np.array([[0.9, 0.8, 0.1]]), left_out).auroc() == 1
    assert NoneOfThese(np.array([[0.1, 0.2, 0.9]]), left_out).auroc() == 0
    assert NoneOfThese(np.array([[0.5, 0.5, 0.5]]), left_out).auroc() == 0.5
    assert NoneOfThese(np.array([[0.5, 0.5, 0.5]]), left_out).auroc(np.array([1, 2, 0])) == 0.5  # no pair was drawn


def test_each_class_is_left_out_once_a_tenth_at_a_time() -> None:
    bank, images, label = vectors(25, 400)
    found = none_of_these(images, bank, photos(label, 25), threshold=0.7)
    assert found is not None and found.accepted is not None and found.refused is not None
    left_out = found._left_out
    assert left_out.shape == (10, 400)
    assert (left_out.sum(axis=0) == 1).all()
    fold = left_out.argmax(axis=0)
    classes = [set(label[fold == f]) for f in range(10)]
    assert all(len(group) in {2, 3} for group in classes)
    cosines = (images @ bank.T).astype(np.float64)
    expected = []
    for f, out in enumerate(classes):
        rest = [k for k in range(25) if k not in out]
        best = cosines[:, rest].max(axis=1)
        expected.append(by_pairs(best[fold != f], best[fold == f]))
        assert found.refused[fold == f].tolist() == (best[fold == f] < 0.7).tolist()
    assert found.auroc() == pytest.approx(np.mean(expected), abs=1e-6)
    assert found.accepted.tolist() == (cosines.max(axis=1) >= 0.7).tolist()
    assert 0.5 < found.auroc() < 1
    again = none_of_these(images, bank, photos(label, 25), threshold=None)
    assert again is not None
    assert (again.auroc(), again.accepted, again.refused) == (found.auroc(), None, None)


def test_photos_of_unknown_class_take_no_part() -> None:
    bank, images, label = vectors(4, 60)
    label[:5] = -1
    found = none_of_these(images, bank, photos(label, 4), None)
    assert found is not None
    assert found.n == 55
    assert found._left_out.shape == (4, 55)  # fewer classes than folds


def test_a_worse_student_loses_with_an_interval() -> None:
    bank, images, label = vectors(12, 300)
    noisy = images + np.random.default_rng(1).normal(0, 0.3, images.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    one, two = (none_of_these(each, bank, photos(label, 12), None) for each in (images, noisy))
    assert one is not None and two is not None
    drop = one.drop_to(two)
    assert drop.value == pytest.approx(one.auroc() - two.auroc())
    assert 0 < drop.low < drop.value < drop.high
    same = one.drop_to(one)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_only_where_it_is_asked_for() -> None:
    bank, images, label = vectors(4, 60)
    assert none_of_these(images, bank, photos(label, 4, grouped=False), None) is None
    assert none_of_these(images, bank, photos(label, 4, grouped=False), 0.5) is not None
    assert none_of_these(images, bank, photos(label * 0, 4), 0.5) is None  # photos of one class only
