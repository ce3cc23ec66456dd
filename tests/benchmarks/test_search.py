from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evalset import EvalSet
from benchmarks.search import product_search

TEXTS = ("crisp", "soft", "", "crisp")  # two labels share a text, one has none
VECTORS = {"crisp": [1.0, 0.0], "soft": [0.0, 1.0]}


def shop(label: list[int], texts: tuple[str, ...] = TEXTS) -> EvalSet:
    names = ("a", "b", "c", "d")
    known = np.array(label)
    possible = np.eye(4, dtype=bool)[known] | (known < 0)[:, None]
    paths = tuple(Path(f"{index}.png") for index in range(len(label)))
    return EvalSet("x", "test", names, {name: (name,) for name in names}, paths, known, possible, (), texts=texts)


def embed(texts: Sequence[str]) -> np.ndarray:
    return np.array([VECTORS[text] for text in texts], np.float32)


def unit(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_photos_and_texts_find_each_other_as_by_hand() -> None:
    # Photos of a, b, c (without a text), d (the text of a) and of something unknown, the nearest to "soft".
    found = product_search(unit(10, 30, 0, 60, 90), shop([0, 1, 2, 3, -1]), embed)
    assert found is not None
    assert found.texts.tolist() == [VECTORS["crisp"], VECTORS["soft"]]
    assert found.place.tolist() == [0, 1, 1]  # of a, b and d
    assert found.text_found_in(1).tolist() == [True, False, False]
    assert found.text_found_in(5).tolist() == [True, True, True]
    # "crisp": c (irrelevant), a, b, d. "soft": the unknown photo is junk, then d (irrelevant), b.
    assert found.photos.found_in(1).tolist() == [False, False]
    assert found.photos.found_in(2).tolist() == [True, True]
    assert found.photos.value() == pytest.approx(((1 / 2 + 2 / 4) / 2 + 1 / 2) / 2)


def test_of_equal_texts_the_first_stands_first() -> None:
    texts = ("crisp", "soft", "", "")
    found = product_search(unit(45, 45), shop([0, 1], texts), lambda each: unit(*(0.0 for _ in each)))
    assert found is not None
    assert found.place.tolist() == [0, 1]


@pytest.mark.parametrize(("label", "texts"), [([0, 1], ()), ([2, -1], TEXTS)])
def test_no_search_without_a_photo_that_has_a_text(label: list[int], texts: tuple[str, ...]) -> None:
    assert product_search(unit(0, 90), shop(label, texts), embed) is None
