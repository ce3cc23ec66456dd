"""Search: the vectors nearest to a text or a frame, on every engine of this machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import runtimes
import sdk
from runtimes import FeedError
from sdk import Hit, Student
from tests.bundles import COLOURS, DIM, colour_frame

HERE = [str(target) for target in runtimes.targets()]
NAMES = list(COLOURS)


@pytest.fixture(scope="module")
def student(colours: Path) -> Iterator[Student]:
    with sdk.load(colours, budget_s=0) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def photos(student: Student) -> np.ndarray:
    """A photo of each colour, embedded."""
    return student.embed_images([colour_frame(colour, seed=i) for i, colour in enumerate(NAMES)])


@pytest.mark.parametrize("on", HERE)
def test_finds_photos_by_text_and_texts_by_photo(colours: Path, on: str) -> None:
    with sdk.load(colours, on=on, precision="fp32") as student:
        photos = student.embed_images([colour_frame(colour, size=30, seed=i) for i, colour in enumerate(NAMES)])
        texts = student.embed_texts([f"a {colour} wall" for colour in NAMES])
        for index, colour in enumerate(NAMES):
            hits = student.search(f"a {colour} wall", photos, k=2)
            assert [type(hit) for hit in hits] == [Hit, Hit]
            assert hits[0].index == index
            assert student.search(colour_frame(colour), texts)[0].index == index


def test_all_are_ranked_by_their_cosine(student: Student, photos: np.ndarray) -> None:
    cosines = photos @ student.embed_texts(["red"])[0]
    hits = student.search("red", photos, k=99)
    assert [hit.index for hit in hits] == np.argsort(-cosines).tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-6)
    assert len(student.search("red", photos)) == 5
    assert student.task("search")("red", photos, np.int64(2)) == hits[:2]
    assert all(type(hit.index) is int and type(hit.score) is float for hit in hits)


def test_ties_stay_in_order(student: Student, photos: np.ndarray) -> None:
    red = NAMES.index("red")
    among = photos[[red, 1 - red, red, red]]
    assert [hit.index for hit in student.search("red", among)] == [0, 2, 3, 1]
    assert len({hit.score for hit in student.search("red", among, k=3)}) == 1


def test_every_kind_of_query(student: Student, photos: np.ndarray, tmp_path: Path) -> None:
    rgb = colour_frame("blue", size=32)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    path = tmp_path / "blue.png"
    assert cv2.imwrite(str(path), bgr)
    wanted = student.search(rgb, photos)
    assert wanted[0].index == NAMES.index("blue")
    for query in (path, path.read_bytes(), np.dstack([rgb, rgb[..., :1]])):
        assert student.search(query, photos) == wanted
    assert student.search(bgr, photos, color="bgr") == wanted
    assert student.search(str(path), photos) != wanted, "a str is a text"


@pytest.mark.parametrize(
    ("among", "message"),
    [
        (np.zeros((0, DIM), np.float32), "there are no vectors to search among; make them with embed_images or embed"),
        (
            np.eye(3, DIM - 1, dtype=np.float32),
            f"vectors of {DIM} values, but these have {DIM - 1}: they are of another",
        ),
        (np.eye(3, DIM), f"search wants its vectors as float32 (N, {DIM}), but float64 (3, {DIM}) came; make them"),
        (np.eye(1, DIM, dtype=np.float32)[0], f"as float32 (N, {DIM}), but float32 ({DIM},) came; make them"),
        (
            [[1.0]],
            f"as float32 (N, {DIM}), but a list came; make them with embed_images or embed_texts of this student",
        ),
        (None, f"as float32 (N, {DIM}), but a NoneType came"),
        (2 * np.eye(3, DIM, dtype=np.float32), "row 0 of the vectors to search among is not of unit length; make them"),
        (np.eye(3, DIM, dtype=np.float32) * [[1], [1], [np.nan]], "but float64"),
        (
            np.array([[1] + [0] * (DIM - 1), [np.nan] * DIM], np.float32),
            "row 1 of the vectors to search among is not of",
        ),
        (
            np.array([[1] + [0] * (DIM - 1), [0] * DIM], np.float32),
            "row 1 of the vectors to search among is not of unit",
        ),
    ],
)
def test_vectors_that_cannot_be_searched(student: Student, among: Any, message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        student.search("red", among)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "a text is empty; write a word or a phrase"),
        (["red", "blue"], "search takes one text or one frame, but a list came; search for one at a time"),
        ([colour_frame("red")], "search takes one text or one frame, but a list came; search for one at a time"),
        (np.zeros((2, 16, 16, 3), np.uint8), "search takes one text or one frame, but a 4-D array came"),
        ((text for text in ["red"]), "search takes one text or one frame, but a generator came"),
        (None, "wanted an array, a path or the bytes of an image, got NoneType"),
        (colour_frame("red") / 255, "wanted a uint8 frame, got float64"),
        (Path("nowhere.png"), "wanted an image file, got a path that does not exist"),
    ],
)
def test_queries_that_cannot_be_used(student: Student, photos: np.ndarray, query: Any, message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        student.search(query, photos)


@pytest.mark.parametrize("k", [0, -1, 1.5, "2", None])
def test_k_must_be_a_whole_number(student: Student, photos: np.ndarray, k: Any) -> None:
    with pytest.raises(FeedError, match=re.escape(f"k must be a whole number from 1, but is {k!r}")):
        student.search("red", photos, k=k)


def test_a_hit_is_frozen(student: Student, photos: np.ndarray) -> None:
    hit: Any = student.search("red", photos)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        hit.score = 1.0
