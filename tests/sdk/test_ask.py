"""Questions about a frame, on every engine of this machine."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import runtimes
import sdk
from runtimes import Array, FeedError, Unavailable, VerifyError
from sdk import Answer, Student
from sdk.tasks import ask as ask_task
from tests.bundles import ANSWERS, LENGTH, NAMED, SIZE, WIDTH, colour_frame, damage, golden_with

HERE = [str(target) for target in runtimes.targets()]
each_target = pytest.mark.parametrize("on", HERE)


@pytest.fixture(scope="module")
def student(colours: Path) -> Iterator[Student]:
    with sdk.load(colours, budget_s=0) as loaded:
        yield loaded


class Counted:
    """A student's scene whose `run` is the real one and counts the rows that each tower ran."""

    def __init__(self, student: Student) -> None:
        self.rows: Counter[str] = Counter()
        self._run = student.run
        self.ask = ask_task.task(dataclasses.replace(student._scene, run=self.run))

    def run(self, graph: str, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        self.rows[graph] += len(next(iter(feeds.values())))
        return self._run(graph, feeds)


@each_target
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_answers_are_right(colours: Path, on: str, precision: str) -> None:
    questions = ["what color is it?", *(f"is it {colour}?" for colour in NAMED), "a purple wall?"]
    with sdk.load(colours, on=on, precision=precision) as student:
        for seed, colour in enumerate(NAMED):
            answers: Any = student.ask(colour_frame(colour, size=40, seed=seed), questions)
            wanted = [colour, *("yes" if colour == each else "no" for each in NAMED)]
            wanted += ["yes" if colour == "purple" else "no"]
            assert [answer.label for answer in answers] == wanted
            assert all(type(answer) is Answer and 0.9 < answer.score <= 1 for answer in answers)
        ran = student.ran_on["fusion"]
        assert (ran.target, ran.variant) == (on, precision)
        assert re.fullmatch(r"asked for; golden error \d\.\de[-+]\d\d of .*", ran.why)


def test_one_question_gives_one_answer_and_a_list_a_list(student: Student) -> None:
    frame = colour_frame("red")
    answer: Any = student.ask(frame, "is it red?")
    assert (answer.label, answer.unknown, answer.cut) == ("yes", 0, 0)
    assert student.ask(frame, ["is it red?"]) == [answer]
    assert student.ask(frame, ("is it red?", "is it red?")) == [answer, answer]
    assert student.ask(frame, []) == []
    assert student.task("ask")(frame, "is it red?") == answer


def test_the_score_is_the_softmax_of_the_logits(student: Student) -> None:
    frame, question = colour_frame("green"), "what is it?"
    tokens = student._embed.tokens([question])
    feeds = {
        "image": student.run("image", {"image": frame[None]})["tokens"],
        "text": student.run("text", {"ids": tokens.ids, "mask": tokens.mask})["tokens"],
        "mask": tokens.mask,
    }
    assert feeds["text"].shape == (1, LENGTH, WIDTH)
    assert not feeds["text"][tokens.mask == 0].any()
    logits = student.run("fusion", feeds)["logits"][0].astype(float)
    answer: Any = student.ask(frame, question)
    assert answer.label == ANSWERS[int(logits.argmax())] == "green"
    assert answer.score == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), abs=1e-9)


def test_of_equal_answers_the_first_wins() -> None:
    question = ask_task.Question(np.zeros((1, 2, 3), np.float32), np.ones((1, 2), np.int64), 1, 2)
    answer = ask_task.best(np.array([[0, 1, 1]], np.float32), ("a", "b", "c"), question)
    assert (answer.label, answer.unknown, answer.cut) == ("b", 1, 2)
    assert answer.score == pytest.approx(np.e / (1 + 2 * np.e))


# Each tower runs no more often than it must


def test_the_image_runs_once_for_all_questions(student: Student) -> None:
    counted = Counted(student)
    answers = counted.ask(colour_frame("red"), ["is it red?", "what is it?", "is it blue?", "is it red?"])
    assert [answer.label for answer in answers] == ["yes", "red", "no", "yes"]
    assert counted.rows == {"image": 1, "text": 3, "fusion": 4}


def test_a_question_is_read_once(student: Student) -> None:
    counted = Counted(student)
    for colour in ("red", "blue", "red"):
        assert counted.ask(colour_frame(colour), "what is it?").label == colour
    assert counted.rows == {"image": 3, "text": 1, "fusion": 3}
    counted.ask(colour_frame("red"), ["what is it?", "is it red?"])
    assert counted.rows["text"] == 2


def test_the_least_recently_used_question_is_forgotten(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_task, "_REMEMBERED", 2)
    counted, frame = Counted(student), colour_frame("red")
    for question, read in (("is it red?", 1), ("what is it?", 2), ("is it red?", 2), ("is it blue?", 3)):
        counted.ask(frame, question)
        assert counted.rows["text"] == read
    counted.ask(frame, "is it red?")
    assert counted.rows["text"] == 3
    counted.ask(frame, "what is it?")
    assert counted.rows["text"] == 4
    assert [a.label for a in counted.ask(frame, ["is it red?", "is it blue?", "what is it?"])] == ["yes", "no", "red"]


@pytest.mark.parametrize(("bytes_", "kept"), [(0, 1), (3 * LENGTH * WIDTH * 4, 3), (10**9, 256)])
def test_what_is_remembered_is_bounded_in_bytes(
    student: Student, monkeypatch: pytest.MonkeyPatch, bytes_: int, kept: int
) -> None:
    monkeypatch.setattr(ask_task, "_REMEMBERED_BYTES", bytes_)
    questions = ask_task.Questions(student._scene, WIDTH)
    questions.read([f"is it {index}?" for index in range(kept + 5)])
    assert list(questions._seen) == [f"is it {index}?" for index in range(5, kept + 5)]
    assert all(question.tokens.base is None for question in questions._seen.values())


def test_towers_wait_for_the_first_question(colours: Path) -> None:
    with sdk.load(colours, budget_s=0) as student:
        student.classify(colour_frame("red"))
        assert student.ask(colour_frame("red"), []) == []
        assert list(student.ran_on) == ["image"]
        student.ask(colour_frame("red"), "is it red?")
        assert sorted(student.ran_on) == ["fusion", "image", "text"]


def test_threads_ask_at_once(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_task, "_REMEMBERED", 3)  # so that threads also push each other's questions out
    frames = {colour: colour_frame(colour, size=32) for colour in NAMED}
    names = list(NAMED)
    with sdk.load(colours, budget_s=0) as student:

        def look(thread: int) -> None:
            for turn in range(15):
                colour, other = names[(thread + turn) % len(names)], names[turn % len(names)]
                answers: Any = student.ask(frames[colour], ["what is it?", f"is it {colour}?", f"is it {other}?"])
                assert [a.label for a in answers] == [colour, "yes", "yes" if other == colour else "no"]

        with ThreadPoolExecutor(8) as pool:
            for each in [pool.submit(look, thread) for thread in range(8)]:
                each.result(timeout=120)


# What may be asked, and of what


def test_every_kind_of_frame(student: Student, tmp_path: Path) -> None:
    rgb = colour_frame("blue", size=32)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    path = tmp_path / "blue.png"
    assert cv2.imwrite(str(path), bgr)
    wanted = student.ask(rgb, "what is it?")
    for frame in (path, str(path), path.read_bytes(), np.dstack([rgb, rgb[..., :1]])):
        assert student.ask(frame, "what is it?") == wanted
    assert student.ask(bgr, "what is it?", color="bgr") == wanted
    assert student.ask(bgr, "what is it?") != wanted


def test_unknown_words_are_counted(student: Student) -> None:
    answer: Any = student.ask(colour_frame("red"), "is it shiny red qwerty?")
    assert (answer.label, answer.unknown, answer.cut) == ("yes", 2, 0)


def test_a_long_question_is_cut_counted_and_said_once(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sdk.load(colours, budget_s=0) as student, caplog.at_level(logging.WARNING):
        short, long, longer = student.ask(  # type: ignore[misc]
            colour_frame("red"), ["is it red?", "is it a blue wall ? is it red?", "red " * 20]
        )
        student.ask(colour_frame("red"), "blue " * 10)
    assert (short.label, short.cut) == ("yes", 0)
    assert (long.label, long.cut) == ("no", 4)  # its end, which says red, was not read
    assert (longer.label, longer.cut) == ("yes", 20 - LENGTH)
    assert caplog.messages == [f"a text is longer than {LENGTH} tokens and was cut (said once)"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "wanted a question that is a str and not empty, but '' came; write it out: 'what is this?'"),
        (" \n", r"wanted a question that is a str and not empty, but ' \n' came"),
        (["is it red?", ""], "wanted a question that is a str and not empty, but '' came"),
        (["is it red?", None], "wanted a question that is a str and not empty, but None came"),
        (None, "wanted a question as str, or a list of them, but a NoneType came"),
        (b"is it red?", "wanted a question as str, or a list of them, but a bytes came"),
        ((q for q in ["is it red?"]), "wanted a question as str, or a list of them, but a generator came"),
        ({"is it red?"}, "wanted a question as str, or a list of them, but a set came"),
        ("a" * 10_001, "a text has 10001 characters; at most 10000"),
        ("is it \ud800", "the tokenizer cannot read one of"),
    ],
)
def test_questions_that_cannot_be_used(student: Student, question: Any, message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        student.ask(colour_frame("red"), question)


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        ([colour_frame("red")], "list"),
        ((colour_frame("red"), colour_frame("blue")), "tuple"),
        ([], "list"),
        (np.zeros((2, SIZE, SIZE, 3), np.uint8), "4-D array"),
        ((colour_frame(colour) for colour in ("red", "blue")), "generator"),
    ],
)
def test_frames_come_one_at_a_time(student: Student, frames: Any, kind: str) -> None:
    message = (
        f"ask takes one frame with its questions, but a {kind} came; ask of one at a time: "
        "[student.ask(frame, question) for frame in frames]"
    )
    with pytest.raises(FeedError, match=re.escape(message)):
        student.ask(frames, "is it red?")


def test_a_frame_that_cannot_be_used(student: Student) -> None:
    with pytest.raises(FeedError, match=r"^wanted a uint8 frame, got float64"):
        student.ask(colour_frame("red") / 255, "is it red?")
    with pytest.raises(FeedError, match="wanted color 'rgb' or 'bgr', got 'hsv'"):
        student.ask(colour_frame("red"), "is it red?", color="hsv")


# Bundles that cannot


def test_a_bundle_that_was_not_made_for_questions(plain: Path, tmp_path: Path) -> None:
    message = "was not made for the task 'ask'; it does: classify, embed_images, embed_texts"
    with sdk.load(plain, budget_s=0) as student, pytest.raises(Unavailable, match=message):
        student.ask(colour_frame("red"), "is it red?")
    with sdk.load(damage(plain, tmp_path / "b", change=lambda t: t["tasks"].append("ask"))) as student:
        with pytest.raises(Unavailable, match="has no fusion tower, which the task 'ask' needs; ask its maker"):
            student.ask(colour_frame("red"), "is it red?")
        assert student.classify(colour_frame("red"))[0].label == "red"  # type: ignore[union-attr]


@each_target
def test_wrong_golden_logits_are_refused(colours: Path, tmp_path: Path, on: str) -> None:
    wrong = sdk.open_bundle(colours).golden["out/fusion/fp32/logits"][:, ::-1]
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__fusion__fp32__logits=wrong)})
    with sdk.load(path, on=on, precision="fp32") as student:
        assert student.classify(colour_frame("red"))[0].label == "red"  # type: ignore[union-attr]
        with pytest.raises(VerifyError, match=rf"no target can run the fusion tower of .*: {on} fp32: answers leave"):
            student.ask(colour_frame("red"), "is it red?")
    with sdk.load(path, budget_s=0) as student:  # the other variant proves itself
        assert student.ask(colour_frame("red"), "what is it?").label == "red"  # type: ignore[union-attr]
        assert student.ran_on["fusion"].variant == "int8"


@each_target
def test_wrong_golden_tokens_are_refused(colours: Path, tmp_path: Path, on: str) -> None:
    """The embedding is right: every output counts."""
    wrong = np.roll(sdk.open_bundle(colours).golden["out/image/fp32/tokens"], 1, axis=2)
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__image__fp32__tokens=wrong)})
    with pytest.raises(VerifyError, match=rf"{on} fp32: answers leave the golden outputs by "):
        sdk.load(path, on=on, precision="fp32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(colours: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Only a broken engine gives them; this breaks it."""
    with sdk.load(colours, budget_s=0) as student:
        student.ask(colour_frame("red"), "is it red?")
        kind = type(student._session("fusion"))
        right = kind.run

        def wrong(self: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
            return {
                n: np.full_like(array, value) if n == "logits" else array for n, array in right(self, feeds).items()
            }

        monkeypatch.setattr(kind, "run", wrong)
        with pytest.raises(Unavailable, match="the fusion tower gave non-finite logits; run: python -m sdk verify"):
            student.ask(colour_frame("red"), "is it red?")
