"""The SDK as an app uses it, on every engine of this machine."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import runtimes
import sdk
from runtimes import Array, BundleError, FeedError, Unavailable, VerifyError, ov
from sdk import Answer, Student, tasks
from sdk.choose import PRECISIONS
from sdk.label_set import LabelSet
from sdk.manifest import ScoreSpec
from sdk.tasks import classify as classify_task
from tests.bundles import BANK, COLOURS, DIM, LENGTH, SIZE, colour_frame, damage, golden_with

ROOT = Path(__file__).parents[2]
HERE = [str(target) for target in runtimes.targets()]
each_target = pytest.mark.parametrize("on", HERE)


@pytest.fixture(scope="module")
def student(colours: Path) -> Iterator[Student]:
    """One student for the tests that do not change it."""
    with sdk.load(colours, budget_s=0) as loaded:  # nothing moves while they look
        yield loaded


def one(answers: Any) -> Answer:
    """The best answer for one frame."""
    assert isinstance(answers[0], Answer)
    return answers[0]


def in_a_fresh_process(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Frames in, answers out


@each_target
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_recognises_colours(colours: Path, on: str, precision: str) -> None:
    with sdk.load(colours, on=on, precision=precision) as student:
        for seed, label in enumerate(BANK):
            answer = one(student.classify(colour_frame(label, size=40, seed=seed)))
            assert (answer.label, answer.unknown) == (label, 0)
            assert 0.5 < answer.score <= 1
        assert (
            one(student.classify(colour_frame("purple"), labels=["a red wall", "a purple wall"])).label
            == "a purple wall"
        )


def test_many_frames_give_a_list_each(student: Student) -> None:
    frames = [colour_frame("red"), colour_frame("blue", size=64), colour_frame("green")]
    for many in (frames, tuple(frames)):
        answers = student.classify(many, k=2)
        assert [[type(a) for a in row] for row in answers] == [[Answer] * 2] * 3
        assert [one(row).label for row in answers] == ["red", "blue", "green"]
    batch = np.stack([frames[0], frames[2]])
    assert [one(row).label for row in student.classify(batch)] == ["red", "green"]
    assert [one(row).label for row in student.classify([frames[0]])] == ["red"]
    assert student.classify([]) == []


def test_an_answer_for_many_is_the_answer_for_each(student: Student) -> None:
    frames = [colour_frame(colour, seed=i) for i, colour in enumerate(COLOURS)]
    assert student.classify(frames, k=4) == [student.classify(frame, k=4) for frame in frames]


def test_k_answers_best_first(student: Student) -> None:
    scores = [answer.score for answer in student.classify(colour_frame("red"), k=3)]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    everything = student.classify(colour_frame("red"), k=99)
    assert sorted(answer.label for answer in everything) == sorted(BANK)
    assert sum(answer.score for answer in everything) == pytest.approx(1)


@pytest.mark.parametrize("k", [0, -1, 1.0, "2", None])
def test_k_must_be_a_whole_number(student: Student, k: Any) -> None:
    with pytest.raises(FeedError, match=re.escape(f"k must be a whole number from 1, but is {k!r}")):
        student.classify(colour_frame("red"), k=k)


def test_ties_stay_in_the_order_of_the_labels(student: Student) -> None:
    """All of these are the same unknown words to the student, so their scores are equal."""
    labels = ["qwerty", "asdf", "zxcv", "uiop"]
    for order in (labels, labels[::-1]):
        answers: Any = student.classify(colour_frame("red"), labels=order, k=4)
        assert [answer.label for answer in answers] == order
        assert len({answer.score for answer in answers}) == 1


def test_unknown_tokens_are_counted_in_the_answer(student: Student) -> None:
    answers: Any = student.classify(colour_frame("red"), labels=["a red wall", "a shiny thing", "qwerty"], k=3)
    assert {answer.label: answer.unknown for answer in answers} == {"a red wall": 0, "a shiny thing": 2, "qwerty": 1}


def test_a_long_label_is_cut_and_said_once(colours: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sdk.load(colours) as student, caplog.at_level(logging.WARNING):
        student.classify(colour_frame("red"), labels=["red " * 20])
        student.embed_texts(["blue " * 20])
    assert caplog.messages == [f"a text is longer than {LENGTH} tokens and was cut (said once)"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no labels were given; give at least one, or fill the bank with labels.replace([...])"),
        (["red", "blue", "red"], "the label 'red' was given twice; give each label once"),
        ("red", "labels must be a list of str, but str came; write [label]"),
        (5, "labels must be a list of str, but int came; write [label]"),
        (["red", ""], "a label must be a text that is not empty, but '' came"),
        (["red", None], "a label must be a text that is not empty, but None came"),
        (["red", "a \ud800"], "the tokenizer cannot read one of"),
    ],
)
def test_labels_that_cannot_be_used(student: Student, labels: Any, message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        student.classify(colour_frame("red"), labels=labels)


def test_an_empty_bank_says_what_to_do(colours: Path, tmp_path: Path) -> None:
    with sdk.load(damage(colours, tmp_path / "b", change=lambda t: t.update(labels=None))) as student:
        assert student.labels.list() == []
        with pytest.raises(
            FeedError, match=r"the label bank is empty; fill it with student\.labels\.replace\(\[\.\.\.\]"
        ):
            student.classify(colour_frame("red"))
        assert one(student.classify(colour_frame("red"), labels=["red", "blue"])).label == "red"
        student.labels.replace(["blue", "red"])
        assert one(student.classify(colour_frame("red"))).label == "red"


def test_labels_edited_while_running(colours: Path) -> None:
    with sdk.load(colours) as student:
        assert one(student.classify(colour_frame("purple"))).label != "purple"
        student.labels.add("purple")
        assert one(student.classify(colour_frame("purple"))).label == "purple"
        student.labels.remove("purple")
        assert one(student.classify(colour_frame("purple"))).label != "purple"
        student.labels.replace({"night": ["black", "a black wall"], "day": ["white"]})
        assert one(student.classify(colour_frame("black"))).label == "night"


def test_every_kind_of_frame(student: Student, tmp_path: Path) -> None:
    rgb = colour_frame("blue", size=32)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    path = tmp_path / "blue.png"
    assert cv2.imwrite(str(path), bgr)
    wanted = student.embed_images(rgb)
    alpha = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    for frame in (path, str(path), path.read_bytes(), alpha, memoryview(path.read_bytes())):
        np.testing.assert_array_equal(student.embed_images(frame), wanted)
    np.testing.assert_array_equal(student.embed_images(bgr, color="bgr"), wanted)
    assert one(student.classify(bgr, color="bgr")).label == "blue"
    assert one(student.classify(bgr)).label == "red"
    assert one(student.classify(np.full((20, 20), 240, np.uint8), labels=["white", "black"])).label == "white"


def test_a_frame_that_cannot_be_used_is_named(student: Student) -> None:
    good = colour_frame("red")
    with pytest.raises(FeedError, match=r"^wanted a uint8 frame, got float64"):
        student.classify(good / 255)
    with pytest.raises(FeedError, match=r"^frame 1: wanted a uint8 frame, got float32"):
        student.classify([good, good.astype(np.float32), good])
    with pytest.raises(FeedError, match=r"^frame 2: wanted at least 8 x 8 pixels"):
        student.embed_images([good, good, good[:1, :1]])
    with pytest.raises(FeedError, match=r"^wanted an array, a path or the bytes of an image, got NoneType"):
        student.classify(None)
    with pytest.raises(FeedError, match="wanted color 'rgb' or 'bgr', got 'hsv'"):
        student.classify(good, color="hsv")


# Embeddings


@each_target
@pytest.mark.parametrize("precision", ["fp32", "int8", None])
def test_embeddings_are_float32_of_unit_norm(colours: Path, on: str, precision: str | None) -> None:
    rng = np.random.default_rng(5)
    frames: list[object] = [rng.integers(0, 256, (30, 50, 3), dtype=np.uint8) for _ in range(6)]
    frames += [colour_frame(colour) for colour in COLOURS]
    with sdk.load(colours, on=on, precision=precision) as student:
        for vectors in (student.embed_images(frames), student.embed_texts(["red", "a green wall", "qwerty", "a " * 9])):
            assert vectors.dtype == np.float32
            assert vectors.shape[1] == DIM
            np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, rtol=0, atol=1e-5)
        assert student.embed_images(frames[0]).shape == (1, DIM)
        assert student.embed_images([]).shape == student.embed_texts([]).shape == (0, DIM)


def test_engines_agree(colours: Path) -> None:
    frames = [colour_frame(colour, size=50, seed=9) for colour in COLOURS]
    found = []
    for on in HERE:
        with sdk.load(colours, on=on, precision="fp32") as student:
            found.append((student.embed_images(frames), student.embed_texts(["red", "a blue wall", "purple"])))
    for images, texts in found[1:]:
        assert (np.einsum("nd,nd->n", images, found[0][0]) >= 0.9999).all()
        assert (np.einsum("nd,nd->n", texts, found[0][1]) >= 0.9999).all()


def test_texts_may_come_in_any_sequence(student: Student) -> None:
    wanted = student.embed_texts(["red", "blue"])
    texts: Any
    for texts in (("red", "blue"), (text for text in ["red", "blue"]), np.array(["red", "blue"])):
        np.testing.assert_array_equal(student.embed_texts(texts), wanted)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("red", "texts must be a list of str, but one str came; write [text]"),
        (None, "texts must be a list of str, but NoneType came"),
        ([None], "a text must be a str, but a NoneType came"),
        (["red", " "], "a text is empty; write a word or a phrase"),
    ],
)
def test_texts_that_cannot_be_used(student: Student, texts: Any, message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        student.embed_texts(texts)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_embedding_of_no_direction_is_refused(colours: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Only a broken engine gives one; this breaks it."""
    with sdk.load(colours, budget_s=0) as student:
        kind = type(student._session("image"))
        monkeypatch.setattr(kind, "run", lambda *_: {"embedding": np.full((1, DIM), value, np.float32)})
        with pytest.raises(
            Unavailable, match="the image tower gave a zero or non-finite embedding; run: python -m sdk"
        ):
            student.embed_images(colour_frame("red"))


# Scores

_UNITS = np.eye(3, dtype=np.float32)
_IMAGES = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)


def test_softmax_scores_by_hand() -> None:
    scores = classify_task.scores(_IMAGES, _UNITS, ScoreSpec("softmax", 2.0, 0.5))
    for row, cosines in zip(scores, ([1, 0, 0], [0.6, 0.8, 0]), strict=True):
        exponentials = [2.718281828459045 ** (2 * cosine + 0.5) for cosine in cosines]
        np.testing.assert_allclose(row, [e / sum(exponentials) for e in exponentials], rtol=1e-6)


def test_sigmoid_scores_by_hand() -> None:
    scores = classify_task.scores(_IMAGES, _UNITS, ScoreSpec("sigmoid", 10.0, -5.0))
    wanted = [[1 / (1 + 2.718281828459045 ** -(10 * c - 5)) for c in row] for row in ([1, 0, 0], [0.6, 0.8, 0])]
    np.testing.assert_allclose(scores, wanted, rtol=1e-6)


@pytest.mark.parametrize(("kind", "scale", "bias"), [("softmax", 100.0, 0.0), ("sigmoid", 117.330765, -12.932437)])
def test_scores_of_clip_and_siglip_are_those_of_their_formulas(kind: str, scale: float, bias: float) -> None:
    """As transformers computes them, in torch: logits_per_image = image @ text.T * scale + bias."""
    import torch

    rng = np.random.default_rng(0)
    labels = rng.standard_normal((81, 512)).astype(np.float32)
    images = labels[:20] * 0.2 + rng.standard_normal((20, 512)).astype(np.float32)
    images, labels = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, labels))
    logits = torch.from_numpy(images).double() @ torch.from_numpy(labels).double().t() * scale + bias
    wanted = logits.softmax(dim=1) if kind == "softmax" else logits.sigmoid()
    assert wanted.max() > 0.5 and wanted.min() < 1e-6
    scores = classify_task.scores(images, labels, ScoreSpec(kind, scale, bias))
    np.testing.assert_allclose(scores, wanted.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_scores_of_a_steep_scale_stay_finite(kind: str) -> None:
    scores = classify_task.scores(_IMAGES, np.concatenate([_UNITS, -_UNITS]), ScoreSpec(kind, 1e6, 0.0))
    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_the_bundle_says_how_scores_are_made(colours: Path, tmp_path: Path) -> None:
    score = {"kind": "sigmoid", "logit_scale": 5.0, "logit_bias": -1.0}
    with sdk.load(damage(colours, tmp_path / "b", change=lambda t: t.update(score=score)), budget_s=0) as student:
        cosine = float((student.embed_images(colour_frame("red")) @ student.labels.resolve(["red"]).vectors.T)[0, 0])
        answer = one(student.classify(colour_frame("red"), labels=["red"]))
        assert answer.score == pytest.approx(1 / (1 + np.exp(-(5 * cosine - 1))), abs=1e-6)


def test_equal_labels_have_equal_scores_wherever_they_stand() -> None:
    """Matrix products round by place: with `@` every other of these cases is no tie."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        count, dim = rng.integers(2, 60), rng.integers(8, 600)
        images = rng.standard_normal((3, dim)).astype(np.float32) / np.float32(dim**0.5)
        labels = np.tile(images[:1] * 0.5, (count, 1))
        scores = classify_task.scores(images, labels, ScoreSpec("sigmoid", 1.0, 0.0))
        assert (scores == scores[:, :1]).all()
        alone = classify_task.scores(images[1:2], labels, ScoreSpec("sigmoid", 1.0, 0.0))
        np.testing.assert_array_equal(alone, scores[1:2])


def test_equal_labels_among_others_tie_too() -> None:
    """Wherever their rows begin in memory, and whatever stands between them."""
    rng = np.random.default_rng(2)
    for dim in (*range(1, 70), 96, 127, 128, 129, 255, 256, 384, 512, 513, 768):
        image, labels = (rng.standard_normal((n, dim)).astype(np.float32) / np.float32(dim**0.5) for n in (2, 40))
        which = rng.permutation(np.repeat(np.arange(40), 3))
        found = tasks.cosines(image, labels[which])
        np.testing.assert_array_equal(found, tasks.cosines(image, labels)[:, which])
        np.testing.assert_allclose(found, image.astype(float) @ labels[which].T.astype(float), atol=1e-5)


def test_ties_in_scores_by_hand() -> None:
    labels = LabelSet(("a", "b", "c", "d"), np.zeros((4, 2), np.float32), (0, 1, 2, 3), ("",) * 4)
    best = classify_task.best(np.array([0.2, 0.3, 0.2, 0.3]), labels, 3)
    assert best == [Answer("b", 0.3, 1), Answer("d", 0.3, 3), Answer("a", 0.2, 0)]


# Tasks


def test_tasks_by_name(student: Student) -> None:
    frame = colour_frame("red")
    assert student.task("classify")(frame) == student.classify(frame)
    np.testing.assert_array_equal(student.task("embed_images")(frame), student.embed_images(frame))
    np.testing.assert_array_equal(student.task("embed_texts")(["red"]), student.embed_texts(["red"]))
    with pytest.raises(
        Unavailable, match="was not made for the task 'nope'; it does: classify, embed_images, embed_te"
    ):
        student.task("nope")


def test_an_answer_is_frozen(student: Student) -> None:
    answer: Any = one(student.classify(colour_frame("red")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.score = 1.0


def test_a_tower_runs_row_by_row(student: Student) -> None:
    frames = np.stack([colour_frame("red"), colour_frame("blue")])
    both = student.run("image", {"image": frames})["embedding"]
    for i in range(2):
        np.testing.assert_array_equal(student.run("image", {"image": frames[i : i + 1]})["embedding"], both[i : i + 1])


@pytest.mark.parametrize(
    ("graph", "feeds", "message"),
    [
        ("image", {}, "the image tower takes feeds of the same number of rows, at least one, but {} came"),
        (
            "image",
            {"image": np.zeros((0, SIZE, SIZE, 3), np.uint8)},
            "at least one, but {'image': (0, 16, 16, 3)} came",
        ),
        ("image", {"image": np.array(1)}, "at least one, but {'image': ()} came"),
        (
            "text",
            {"ids": np.zeros((2, LENGTH), "i8"), "mask": np.zeros((3, LENGTH), "i8")},
            "{'ids': (2, 6), 'mask': (3",
        ),
        (
            "image",
            {"pixels": np.zeros((1, SIZE, SIZE, 3), np.uint8)},
            "takes the inputs ['image'], but ['pixels'] came",
        ),
    ],
)
def test_feeds_that_fit_no_tower(student: Student, graph: str, feeds: dict[str, Array], message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        student.run(graph, feeds)


def test_a_tower_that_is_not_there(student: Student) -> None:
    with pytest.raises(Unavailable, match="has no audio tower: ask its maker"):
        student.run("audio", {"x": np.zeros((1, 1), np.uint8)})


# Where it runs


def test_the_text_tower_waits_for_a_new_phrase(colours: Path) -> None:
    with sdk.load(colours) as student:
        assert list(student.ran_on) == ["image"]
        student.classify(colour_frame("red"))
        student.classify(colour_frame("red"), labels=["blue", "red"])
        student.labels.remove("red")
        student.labels.add("red")
        assert list(student.ran_on) == ["image"]
        student.classify(colour_frame("red"), labels=["blue", "red", "purple"])
        assert list(student.ran_on) == ["image", "text"]


def test_a_box_that_sees_no_new_phrase_never_imports_tokenizers(colours: Path) -> None:
    said = in_a_fresh_process(
        """
        import sys
        import numpy as np
        import sdk
        with sdk.load(sys.argv[1]) as student:
            student.classify(np.full((20, 20, 3), 200, np.uint8), labels=["red", "blue"])
            print("tokenizers" in sys.modules, list(student.ran_on))
            student.embed_texts(["red"])
            print("tokenizers" in sys.modules, list(student.ran_on))
        """,
        colours,
    )
    assert said.splitlines() == ["False ['image']", "True ['image', 'text']"]


@each_target
def test_ran_on_tells_all(colours: Path, on: str) -> None:
    with sdk.load(colours, on=on, precision="fp32") as student:
        ran: Any = student.ran_on["image"]
        assert (ran.target, ran.variant, ran.compute, ran.tried) == (on, "fp32", "f32", ())
        assert re.fullmatch(r"asked for; golden error \d\.\de-\d\d of 1e-05", ran.why)
        with pytest.raises(TypeError):
            student.ran_on["image"] = ran


def test_without_a_wish_it_takes_the_first_that_proves_itself(student: Student) -> None:
    ran = student.ran_on["image"]
    assert ran.target in HERE
    assert ran.why.startswith("first that opened; golden error ")
    assert ran.tried == ()


def test_the_lightest_variant_comes_first_side_files_included(colours: Path, tmp_path: Path) -> None:
    tried = []
    for heavy in ("fp32", "int8"):
        path = damage(
            colours,
            tmp_path / heavy,
            {"weights.bin": bytes(10_000)},
            lambda table, heavy=heavy: table["graphs"]["image"][heavy].update(external=["weights.bin"]),
        )
        with sdk.load(path, budget_s=0) as student:
            tried.append(student.ran_on["image"].variant)
    assert tried == ["int8", "fp32"]


def test_a_target_is_read_as_the_runtimes_read_it(colours: Path) -> None:
    with sdk.load(colours, on=HERE[0].upper()) as student:
        assert student.ran_on["image"].target == HERE[0]
        assert student.ran_on["image"].why.startswith("asked for; ")


_EXPECTED = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@each_target
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_a_precision_is_what_was_asked_for_or_refused(colours: Path, on: str, precision: str) -> None:
    try:
        student = sdk.load(colours, on=on, precision=precision)
    except Unavailable as error:
        assert precision in {"bf16", "fp16"}
        assert re.search(rf"{on} fp32: .* not in '{_EXPECTED[precision]}'", str(error))
        return
    with student:
        ran = student.ran_on["image"]
        if precision == "int8":
            assert ran.variant == "int8"
            assert ran.compute.startswith("int8+")
        else:
            assert (ran.variant, ran.compute) == ("fp32", _EXPECTED[precision])


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"prefer": "size"}, "prefer='size' is not known; choose one of: 'latency', 'throughput', 'memory'"),
        ({"policy": "lax"}, "policy='lax' is not known; choose one of: 'strict', 'degrade'"),
        ({"precision": "int4"}, "precision='int4' is not known; choose one of: None, 'fp32', 'bf16', 'fp16', 'int8'"),
        ({"on": "cpu"}, "'cpu' is not a target; write runtime:device[.index]"),
        ({"on": "ort:tpu"}, "no target can run the image tower of "),
        (
            {"on": "trt:cuda.0"},
            "has nothing to run its image tower with on='trt:cuda.0'; it has: fp32 for ov/ort, int8",
        ),
        ({"on": "nope:cpu"}, "has nothing to run its image tower with on='nope:cpu'"),
    ],
)
def test_a_wish_that_cannot_be_met(colours: Path, wish: dict[str, str], message: str) -> None:
    with pytest.raises(Unavailable, match=re.escape(message)) as caught:
        sdk.load(colours, **wish)
    if "on" in wish and wish["on"] != "cpu":
        runtime = wish["on"].split(":")[0]
        for target in HERE:  # names those that are
            assert target in str(caught.value) or (runtime in runtimes.names() and not target.startswith(runtime))


def test_a_precision_the_bundle_does_not_hold(colours: Path, tmp_path: Path) -> None:
    path = damage(colours, tmp_path / "b", change=lambda t: t["graphs"]["image"].pop("int8"))
    with pytest.raises(
        Unavailable, match=r"nothing to run its image tower with precision='int8'; it has: fp32 for ov/o"
    ):
        sdk.load(path, precision="int8")


@pytest.mark.parametrize("on", ["ort:tpu", "trt:cuda.0"])
def test_degrade_runs_elsewhere_and_says_so(colours: Path, on: str) -> None:
    with sdk.load(colours, on=on, policy="degrade") as student:
        ran = student.ran_on["image"]
        assert ran.target in HERE
        assert ran.why.startswith(f"first that opened, as {on} did not; golden error ")
        assert [tried.target for tried in ran.tried] == ([on] * 2 if on.startswith("ort") else [])
        assert all("no device 'tpu'" in tried.reason for tried in ran.tried)
        assert one(student.classify(colour_frame("red"))).label == "red"


def test_degrade_stays_where_it_was_asked_when_it_can(colours: Path) -> None:
    with sdk.load(colours, on=HERE[-1], policy="degrade") as student:
        assert student.degraded == ""
        assert student.ran_on["image"].target == HERE[-1]


@each_target
def test_a_wrong_answer_is_refused(colours: Path, tmp_path: Path, on: str) -> None:
    """The engine is right and golden.npz is not, which looks the same from here."""
    wrong = -np.asarray(sdk.open_bundle(colours).golden["out/image/fp32/embedding"])
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__image__fp32__embedding=wrong)})
    message = (
        rf"no target can run the image tower of .*: {on} fp32: answers leave the golden outputs by 2 \(at most 1e-05"
    )
    with pytest.raises(VerifyError, match=message):
        sdk.load(path, on=on, precision="fp32")
    with sdk.load(path, budget_s=0) as student:  # the other variant proves itself
        assert student.ran_on["image"].variant == "int8"
        assert {tried.target for tried in student.ran_on["image"].tried} == set(HERE)
        assert one(student.classify(colour_frame("red"))).label == "red"


@pytest.mark.parametrize("row", [0, 1, -1])
def test_loading_looks_at_the_first_rows_and_the_worst_case(colours: Path, tmp_path: Path, row: int) -> None:
    wrong = sdk.open_bundle(colours).golden["out/image/fp32/embedding"].copy()
    wrong[row] = -wrong[row]
    path = damage(colours, tmp_path / "b", {"golden.npz": golden_with(colours, out__image__fp32__embedding=wrong)})
    with pytest.raises(VerifyError):
        sdk.load(path, precision="fp32")


@pytest.mark.skipif(not {"ov:cpu", "ort:cpu"} <= set(HERE), reason="falling from one engine to the other needs both")
def test_an_engine_that_answers_wrongly_is_passed_over(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO is made to answer back to front: no healthy engine does that here."""
    right = ov.OvSession.run

    def wrong(self: ov.OvSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {name: -array for name, array in right(self, feeds).items()}

    monkeypatch.setattr(ov.OvSession, "run", wrong)
    with sdk.load(colours, precision="fp32", budget_s=0) as student:
        ran = student.ran_on["image"]
        assert (ran.target, ran.compute) == ("ort:cpu", "f32")
        assert [(tried.target, tried.variant) for tried in ran.tried] == [("ov:cpu", "fp32")]
        assert "answers leave the golden outputs by 2 (at most 1e-05, computing in f32)" in ran.tried[0].reason
    with pytest.raises(VerifyError, match="ov:cpu fp32: answers leave"):
        sdk.load(colours, on="ov:cpu", precision="fp32")
    with sdk.load(colours, on="ov:cpu", precision="fp32", policy="degrade") as student:
        assert student.ran_on["image"].target == "ort:cpu"


@pytest.mark.parametrize("cached", [True, False])
def test_what_a_device_makes_stays_out_of_the_bundle(colours: Path, tmp_path: Path, cached: bool) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in colours.iterdir()}
    for on in HERE:
        with sdk.load(colours, on=on, cache_dir=str(tmp_path / "cache") if cached else None) as student:
            student.embed_texts(["purple"])
    assert {path.name: path.stat().st_mtime_ns for path in colours.iterdir()} == before
    assert (tmp_path / "cache").exists() == (cached and "ov:cpu" in HERE)


# A life: threads, fork, close


def test_threads_share_a_student_while_labels_change(colours: Path) -> None:
    frames = {label: colour_frame(label, size=32) for label in BANK}
    with sdk.load(colours) as student:

        def look(thread: int) -> None:
            for turn in range(15):
                label = BANK[(thread + turn) % len(BANK)]
                assert one(student.classify(frames[label])).label == label
                assert one(student.classify(frames[label], labels=[*BANK, f"word {thread % 3}"])).label == label

        def edit() -> None:
            for turn in range(15):
                student.labels.add("purple")
                student.labels.add("black", ["a black wall"])
                student.labels.replace([*BANK, f"thing {turn}"])

        with ThreadPoolExecutor(9) as pool:
            done = [pool.submit(look, thread) for thread in range(8)] + [pool.submit(edit)]
            for each in done:
                each.result(timeout=120)
        assert student.labels.list() == [*BANK, "thing 14"]


def _uses() -> list[Callable[[Student], object]]:
    return [
        lambda student: student.classify(colour_frame("red")),
        lambda student: student.embed_images(colour_frame("red")),
        lambda student: student.embed_texts(["red"]),
        lambda student: student.labels.add("purple"),
        lambda student: student.task("classify")(colour_frame("red")),
    ]


@pytest.mark.parametrize("use", _uses())
def test_a_closed_student_says_so(colours: Path, use: Callable[[Student], object]) -> None:
    with sdk.load(colours) as student:
        use(student)
    if "purple" in student.labels:
        student.labels.replace(BANK)
        student.labels._seen.pop("purple")
    with pytest.raises(Unavailable, match="this student is closed; load the bundle again"):
        use(student)
    student.close()  # a second time does no harm


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_refused_and_its_parent_goes_on(colours: Path) -> None:
    said = in_a_fresh_process(
        """
        import os, sys
        import numpy as np
        import sdk
        frame = np.full((20, 20, 3), 200, np.uint8)
        with sdk.load(sys.argv[1]) as student:
            student.classify(frame)
            child = os.fork()
            if child == 0:
                try:
                    student.classify(frame)
                except sdk.Unavailable as error:
                    print(error, flush=True)
                    os._exit(7)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(student.classify(frame)))
        """,
        colours,
    )
    message, end = said.splitlines()
    assert message == (
        "this process was forked after the bundle was loaded, and engines do not survive a fork; start the child with "
        "multiprocessing's 'spawn'"
    )
    assert end == "7 1"


def test_a_generator_of_frames_is_refused_with_what_to_do(student: Student) -> None:
    message = r"wanted a frame or a list of frames, got a generator; pass a list: list\(frames\)"
    for use in (student.classify, student.embed_images):
        with pytest.raises(FeedError, match=message):
            use(frame for frame in [colour_frame("red")])


def test_k_may_be_one_of_numpys_numbers(student: Student) -> None:
    answers = student.classify(colour_frame("red"), k=np.int64(2))  # type: ignore[arg-type]
    assert len(answers) == 2


def test_loading_with_what_is_no_name(colours: Path) -> None:
    with pytest.raises(Unavailable, match="on=5 is not a target; write runtime:device"):
        sdk.load(colours, on=5)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="a bundle is named by the path of its folder, but a NoneType came"):
        sdk.load(None)  # type: ignore[arg-type]


def test_loading_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: a bundle is a folder that holds bundle\.json"):
        sdk.load(tmp_path)


def test_the_bundle_is_open_to_the_app(student: Student, colours: Path) -> None:
    assert student.bundle.path == colours
    assert student.bundle.manifest.space == "colours-1"
    assert json.loads((colours / "bundle.json").read_text(encoding="utf-8"))["space"] == "colours-1"


def test_a_text_graph_that_changed_after_loading_is_not_opened(colours: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "bundle")
    with sdk.load(tmp_path / "bundle") as student:
        for path in (tmp_path / "bundle").glob("text.*.onnx"):
            path.write_bytes(path.read_bytes()[:-1] + b"!")
        assert student.classify(colour_frame("red"))[0].label == "red"
        with pytest.raises(sdk.BundleError, match="is damaged"):
            student.embed_texts(["red"])
