"""None of these: the threshold on the best cosine, and groups of labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
import sdk
from sdk import Student
from tests.bundles import BANK, GROUPS, THRESHOLD, colour_frame, damage

HERE = [str(target) for target in runtimes.targets()]


@pytest.fixture(scope="module")
def student(colours: Path) -> Iterator[Student]:
    with sdk.load(colours, budget_s=0) as loaded:
        yield loaded


def known(answers: Any) -> bool:
    """What all answers about one frame say."""
    (said,) = {answer.known for answer in answers}
    return bool(said)


@pytest.mark.parametrize("on", HERE)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_frame_of_nothing_in_the_bank_is_not_known(colours: Path, on: str, precision: str) -> None:
    with sdk.load(colours, on=on, precision=precision) as student:
        for seed, label in enumerate(BANK):
            assert known(student.classify(colour_frame(label, seed=seed), k=9))
        answers: Any = student.classify(colour_frame("purple"), k=9)
        assert not known(answers)
        assert answers[0].label == "red", "the answers stay as they are"
        student.labels.add("purple")
        assert known(student.classify(colour_frame("purple")))


def test_the_labels_asked_for_count_not_the_bank(student: Student) -> None:
    red, purple = colour_frame("red"), colour_frame("purple")
    assert not known(student.classify(red, labels=["green", "blue"], k=2))
    assert known(student.classify(red, labels=["green", "red"]))
    assert known(student.classify(purple, labels=["purple", "red"]))
    assert not known(student.classify(purple, labels=["black", "white"]))


def test_each_frame_of_many_has_its_own(student: Student) -> None:
    frames = [colour_frame(colour) for colour in ("purple", "red", "purple", "blue")]
    assert [known(answers) for answers in student.classify(frames, k=2)] == [False, True, False, True]


def test_on_the_threshold_it_is_known(colours: Path, tmp_path: Path, student: Student) -> None:
    vector = student.embed_images(colour_frame("purple"))
    cosine = float(np.vecdot(vector, student.labels.current.vectors).max())
    for threshold, wanted in ((cosine, True), (np.nextafter(cosine, 1), False), (-1, True), (1, False), (None, True)):
        path = damage(colours, tmp_path / str(threshold), change=lambda t, to=threshold: t.update(unknown_threshold=to))
        with sdk.load(path, budget_s=0) as other:
            assert known(other.classify(colour_frame("purple"))) == wanted


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_kind_of_scores_does_not_matter(colours: Path, tmp_path: Path, kind: str) -> None:
    score = {"kind": kind, "logit_scale": -5.0, "logit_bias": 1.0}  # the best score is the lowest cosine's
    with sdk.load(damage(colours, tmp_path / "b", change=lambda t: t.update(score=score)), budget_s=0) as student:
        assert known(student.classify(colour_frame("red")))
        assert not known(student.classify(colour_frame("purple")))
    assert student.bundle.manifest.unknown_threshold == THRESHOLD


def test_a_question_is_always_about_something_known(student: Student) -> None:
    answer: Any = student.ask(colour_frame("purple"), "is it red?")
    assert answer.known


# Groups


def test_the_score_of_a_group_is_the_sum_of_its_labels(student: Student) -> None:
    for colour in ("red", "purple", "blue"):
        frame = colour_frame(colour)
        by_label = {answer.label: answer.score for answer in student.classify(frame, k=9)}  # type: ignore[union-attr]
        answers: Any = student.classify(frame, k=9, groups=True)
        by_group = {answer.label: answer.score for answer in answers}
        assert by_group == pytest.approx(
            {
                "warm": by_label["red"] + by_label["yellow"],
                "cold": by_label["blue"],
                "green": by_label["green"],  # it has no group, so it is its own
            },
            abs=1e-12,
        )
        assert [answer.score for answer in answers] == sorted(by_group.values(), reverse=True)
        assert known(answers) == (colour != "purple")


def test_groups_of_labels_that_are_asked_for(student: Student) -> None:
    labels = ["a shiny thing", "yellow", "red"]
    answers: Any = student.classify(colour_frame("red"), labels=labels, k=3, groups=True)
    assert {answer.label: answer.unknown for answer in answers} == {"warm": 0, "a shiny thing": 2}
    one: Any = student.classify(colour_frame("red"), groups=True)
    assert [answer.label for answer in one] == ["warm"]
    many: Any = student.classify([colour_frame("red"), colour_frame("blue")], groups=True)
    assert [answers[0].label for answers in many] == ["warm", "cold"]
    assert student.classify([], groups=True) == []


def test_groups_follow_the_bank(colours: Path) -> None:
    with sdk.load(colours, budget_s=0) as student:
        student.labels.add("purple", group="mixed")
        answers: Any = student.classify(colour_frame("purple"), k=9, groups=True)
        assert answers[0].label == "mixed"
        assert {answer.label for answer in answers} == {"warm", "cold", "green", "mixed"}
        assert set(GROUPS.values()) - {""} == {"warm", "cold"}


def test_ties_of_groups_stay_in_the_order_of_their_labels(student: Student) -> None:
    """All of these are the same unknown words to the student."""
    labels = ["qwerty", "asdf", "zxcv"]
    for order in (labels, labels[::-1]):
        answers: Any = student.classify(colour_frame("red"), labels=order, k=3, groups=True)
        assert [answer.label for answer in answers] == order
