"""Questions as arrays: each image gets its own, a text is read once, and answers are those of one question alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from compress.data import Question, open_dataset
from compress.draft import DatasetSpec, Draft
from compress.encode import Asker
from compress.models.dual_encoder import Shape, to_input
from compress.questions import Questions, tokens
from compress.steps.teach import Teach
from compress.teaching import Lesson
from runtimes import RecipeError
from tests.bundles import tokenizer_json
from tests.small_models import ANSWERS, SHAPE, save_small, small_model
from tests.tiny import few_images

TEXTS = ("is it red?", "what color is it?", "is it a blue wall?")
# Image 0 has all three, image 1 none, image 2 two, image 3 one twice with other answers, image 4 none.
ASKED = (
    Question(2, TEXTS[0], "no"),
    Question(0, TEXTS[0], "yes"),
    Question(0, TEXTS[1], "blue"),
    Question(3, TEXTS[1], "circle"),
    Question(0, TEXTS[2], "no"),
    Question(2, TEXTS[2], "yes"),
    Question(3, TEXTS[1], "blue"),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json())


@pytest.fixture(scope="module")
def questions(tokenizer: Tokenizer) -> Questions:
    return Questions(ASKED, ANSWERS, tokenizer)


def test_tokens_have_no_column_that_is_padding_only(tokenizer: Tokenizer) -> None:
    ids, mask = tokens(tokenizer, ["red", "a blue wall"])
    assert ids.tolist() == [tokenizer.encode(text).ids[:3] for text in ("red", "a blue wall")]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert ids.dtype == mask.dtype == torch.int64


def test_a_text_is_tokenized_once(questions: Questions, tokenizer: Tokenizer) -> None:
    assert questions.ids.shape == questions.mask.shape == (3, 6)
    assert questions.text.tolist() == [0, 0, 1, 1, 2, 2, 1]
    assert questions.image.tolist() == [2, 0, 0, 3, 0, 2, 3]
    assert [ANSWERS[at] for at in questions.truth] == [question.answer for question in ASKED]
    for row, text in enumerate(TEXTS):
        assert questions.ids[row].tolist() == tokenizer.encode(text).ids


@pytest.mark.parametrize("images", [[0], [2, 0], [3, 1, 4, 2], [1, 3, 0, 4, 2], [0, 0]])
def test_each_image_gets_its_own_questions(questions: Questions, images: list[int]) -> None:
    pairs = questions.of(np.array(images))
    wanted = [(position, n) for position, image in enumerate(images) for n in range(7) if ASKED[n].image == image]
    assert list(zip(pairs.image.tolist(), pairs.asked.tolist(), strict=True)) == wanted
    texts = pairs.texts.tolist()
    assert len(set(texts)) == len(texts), "each text once"
    assert [TEXTS[texts[at]] for at in pairs.text] == [ASKED[n].text for n in pairs.asked]
    assert [ANSWERS[at] for at in pairs.truth] == [ASKED[n].answer for n in pairs.asked]


@pytest.mark.parametrize("images", [[1], [4, 1], [4]])
def test_images_that_nobody_asks_about_have_none(questions: Questions, images: list[int]) -> None:
    """Also beyond the last image with a question."""
    pairs = questions.of(np.array(images))
    arrays = [getattr(pairs, field.name) for field in dataclasses.fields(pairs) if field.name != "share"]
    assert list(map(len, arrays)) == [0] * 5
    assert pairs.share == 0
    assert pairs.asked.dtype == np.int64


def test_a_part_of_a_batch_has_the_questions_about_its_images(questions: Questions) -> None:
    """Of two processes the second one: its images count from 0, and its share is of all that were drawn."""
    images = np.array([0, 1, 3, 0])
    whole = questions.of(images, 2, np.random.default_rng(0))
    parts = [questions.of(images, 2, np.random.default_rng(0), part) for part in (slice(0, 2), slice(2, 4))]
    assert whole.share == 1
    assert np.concatenate([part.asked for part in parts]).tolist() == whole.asked.tolist()
    assert [*parts[0].image.tolist(), *(parts[1].image + 2).tolist()] == whole.image.tolist()
    assert [part.share for part in parts] == [len(part.asked) / len(whole.asked) for part in parts]


def test_at_most_so_many_are_drawn_and_each_gets_its_turn(questions: Questions) -> None:
    seen = set()
    for seed in range(20):
        pairs = questions.of(np.array([0, 1, 3]), 2, np.random.default_rng(seed))
        assert pairs.image.tolist() == [0, 0, 2, 2]
        assert len(set(pairs.asked.tolist())) == 4
        assert {ASKED[n].image for n in pairs.asked[:2]} == {0}
        seen |= set(pairs.asked.tolist())
    assert seen == {1, 2, 4, 3, 6}
    again = [questions.of(np.array([0, 3]), 1, np.random.default_rng(7)).asked.tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_the_asker_answers_each_question_about_its_image(tmp_path: Path) -> None:
    model = small_model()
    files = save_small(model, tmp_path / "model")
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    asker = Asker(model, files, ASKED)
    assert asker.shape == (7, 4)
    images = np.array([3, 1, 0])
    asked, logits = asker(frames[images], images)
    assert asked.tolist() == [3, 6, 1, 2, 4]
    own = Tokenizer.from_file(str(files.text.tokenizer))
    for number, row in zip(asked, logits, strict=True):
        ids, mask = tokens(own, [ASKED[number].text])
        with torch.no_grad():
            frame = to_input(frames[ASKED[number].image][None], files.image.mean, files.image.std)
            alone = model.answer(model.image.both(frame)[1], model.text.both(ids, mask)[1], mask)
        assert torch.allclose(alone[0], row, atol=1e-4)
    assert (logits[2] - logits[3]).abs().max() > 1e-3, "another question, another answer"


def test_a_model_without_a_fusion_cannot_be_asked(tmp_path: Path) -> None:
    model = small_model()
    files = dataclasses.replace(save_small(model, tmp_path / "model"), fusion=None)
    with pytest.raises(TypeError, match="this model has no fusion: it answers no questions"):
        Asker(model, files, ASKED)


def test_without_answers_a_teacher_learns_captions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)
    whole = open_dataset("easy_vqa", {"val_images": 50}).load()
    draft = Draft(tmp_path, tmp_path, 0, DatasetSpec("easy_vqa"))
    asked = Teach(image="timm_image", batch=16, size=32, epochs=1, head_epochs=2)
    shape: Shape = dataclasses.replace(SHAPE, answers=())
    mute = Lesson(asked, shape, dataclasses.replace(whole, answers=()), draft)
    assert (mute.steps, mute.head_steps, len(mute.head())) == (4, 0, 0)
    assert torch.isfinite(mute.loss(0))
    with pytest.raises(TypeError, match="there are no questions: nothing can be asked"):
        mute.head_loss(0)

    lesson = Lesson(asked, dataclasses.replace(shape, answers=whole.answers), whole, draft)
    assert (lesson.steps, lesson.head_steps, len(lesson.head())) == (4, 8, 3)
    lesson.head_loss(0).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in lesson.head().parameters())
    assert all(parameter.grad is None for parameter in lesson.model.image.tower.parameters()), "it stands still"
    with torch.no_grad():
        torch.manual_seed(0)
        both = lesson.loss(1)
        captions = dataclasses.replace(asked, answer=0.0)
        lesson._asked = captions
        assert both > lesson.loss(1) > 0


def test_an_answer_that_the_model_cannot_give_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(RecipeError, match=r"'is it red\?' is answered with 'perhaps', which is none of the answers"):
        Questions([Question(0, TEXTS[0], "perhaps")], ANSWERS, tokenizer)
