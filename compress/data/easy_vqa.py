"""easy-VQA (PyPI `easy-vqa`, MIT): 5,000 images of one coloured shape, with 48,248 questions and answers.

The package does not say what an image shows. It is derived from the questions alone: each answer rules out some of
the 24 colour-shape pairs, and what is left is what the image may show. An image with one pair left has a label; a
caption is true of an image if it is true of every pair left, false if of none, and unknown in between.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data import Corpus, Label, Question, Split
from compress.installed import package_folder
from runtimes import RecipeError

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
ANSWERS = ("yes", "no", *COLOURS, *SHAPES)
PAIRS = tuple(product(COLOURS, SHAPES))
PROMPTS = ("a {}", "there is a {}", "a picture of a {}")
PAIR_WORDINGS = (*PROMPTS, "the image shows a {}", "one {} on a plain background")
COLOUR_WORDINGS = ("a {} shape", "something {}", "the shape is {}", "a picture of a {} shape", "the color is {}")
SHAPE_WORDINGS = ("a {}", "the shape is a {}", "there is a {} in the image", "a picture of a {}", "one {}")

Pairs = NDArray[np.bool_]  # (24,): which of PAIRS are meant


@dataclass(frozen=True)
class EasyVqa:
    """`val_images`: train images held out for validation, never trained on; `split_seed`: draws which ones.
    `test_images`: the first so many of the test images; fewer make a first look quicker.
    """

    val_images: int = 400
    split_seed: int = 0
    test_images: int = 1000

    def __post_init__(self) -> None:
        # The gate decides on them, and a bundle's golden samples are drawn from them.
        if not 50 <= self.val_images <= 2000:
            raise RecipeError(f"data.val_images must lie in 50..2000 (of 4,000 train images), got {self.val_images}")
        if not 50 <= self.test_images <= 1000:
            raise RecipeError(f"data.test_images must lie in 50..1000 (of 1,000), got {self.test_images}")

    def check(self) -> None:
        """Raises Unavailable if the package is not installed."""
        _ = self._root

    def fingerprint(self) -> str:
        """sha256 (hex) over the questions, the images and the fields."""
        digest = hashlib.sha256(repr(self).encode())
        for path in sorted(self._root.glob("t*/**/*.[pj][ns]*")):
            digest.update(path.relative_to(self._root).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()

    def load(self) -> Corpus:
        """The corpus: 4,000 train images less `val_images`, and the first `test_images` of 1,000 test images."""
        train = _read_split(self._root / "train")
        chosen = np.zeros(len(train.images), bool)
        chosen[np.random.default_rng(self.split_seed).permutation(len(chosen))[: self.val_images]] = True
        test = _read_split(self._root / "test")
        first = np.arange(len(test.images)) < self.test_images
        meanings = captions()
        asked = [question.text.lower().rstrip("?") for question in train.questions]
        texts = {text for wordings, _ in meanings for text in wordings}.union(asked)
        words = sorted({word for text in texts for word in text.split()})
        return Corpus(
            name="easy_vqa",
            labels=tuple(Label(" ".join(p), tuple(prompt.format(" ".join(p)) for prompt in PROMPTS)) for p in PAIRS),
            captions=tuple(wordings for wordings, _ in meanings),
            templates=PROMPTS,
            train=_subset(train, ~chosen),
            val=_subset(train, chosen),
            test=_subset(test, first),
            licence="MIT (PyPI easy-vqa 1.0)",
            fingerprint=self.fingerprint(),
            words=tuple(words),
            answers=ANSWERS,
        )

    @cached_property
    def _root(self) -> Path:
        return package_folder("easy_vqa", "the data set easy_vqa") / "data"


def captions() -> list[tuple[tuple[str, ...], Pairs]]:
    """The 35 captions: their wordings, and the pairs of which they are true, bool (24,)."""
    pairs = [(PAIR_WORDINGS, " ".join(pair), mentioned(" ".join(pair))) for pair in PAIRS]
    colours = [(COLOUR_WORDINGS, colour, mentioned(colour)) for colour in COLOURS]
    shapes = [(SHAPE_WORDINGS, shape, mentioned(shape)) for shape in SHAPES]
    return [
        (tuple(wording.format(text) for wording in wordings), pairs_meant)
        for wordings, text, pairs_meant in (*pairs, *colours, *shapes)
    ]


def mentioned(text: str) -> Pairs:
    """The pairs, bool (24,), that fit every colour and shape named in `text`; all of them if it names none."""
    words = set(re.findall(r"\w+", text.lower()))
    colours = words & set(COLOURS) or set(COLOURS)
    shapes = words & set(SHAPES) or set(SHAPES)
    return np.array([colour in colours and shape in shapes for colour, shape in PAIRS])


@cache
def allowed(question: str, answer: str) -> Pairs:
    """The pairs, bool (24,), that one question and its answer leave possible.

    "is no red shape present?" answered "no" says that the shape is red; "what color is the circle?" answered
    "blue" says that it is blue and a circle. Raises ValueError for an answer that is none of the 13.
    """
    about = mentioned(question)
    if answer in COLOURS or answer in SHAPES:
        return about & mentioned(answer)
    if answer not in ("yes", "no"):
        raise ValueError(f"easy-vqa answers are a colour, a shape, yes or no; got {answer!r} to {question!r}")
    negated = bool(re.search(r"\b(not|no)\b", question.lower()))
    return about if (answer == "yes") != negated else ~about


def derive(questions: Iterable[Question], images: int) -> Pairs:
    """bool (images, 24): the pairs that all the questions about an image leave possible."""
    possible = np.ones((images, len(PAIRS)), bool)
    for question in questions:
        possible[question.image] &= allowed(question.text, question.answer)
    return possible


def truth(possible: Pairs, meanings: Sequence[Pairs]) -> NDArray[np.int8]:
    """int8 (N, C): 1 if caption c is true of every possible pair of image n, 0 if of none, else -1."""
    meant = np.stack(meanings)  # (C, 24)
    can_be = (possible[:, None] & meant).any(2)
    can_fail = (possible[:, None] & ~meant).any(2)
    # An image whose questions contradict each other has no possible pair left: nothing is known of it.
    return np.where(can_be & ~can_fail, 1, np.where(~can_be & can_fail, 0, -1)).astype(np.int8)


def _read_split(folder: Path) -> Split:
    images = sorted((folder / "images").glob("*.png"), key=lambda path: int(path.stem))
    position = {int(path.stem): index for index, path in enumerate(images)}
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    questions = tuple(Question(position[image], text, answer) for text, answer, image in rows)
    possible = derive(questions, len(images))
    label = np.where(possible.sum(1) == 1, possible.argmax(1), -1).astype(np.int64)
    return Split(tuple(images), label, possible, truth(possible, [meant for _, meant in captions()]), questions)


def _subset(split: Split, keep: NDArray[np.bool_]) -> Split:
    position = {int(old): new for new, old in enumerate(np.flatnonzero(keep))}
    return Split(
        images=tuple(path for path, kept in zip(split.images, keep, strict=True) if kept),
        label=split.label[keep],
        possible=split.possible[keep],
        matches=split.matches[keep],
        questions=tuple(Question(position[q.image], q.text, q.answer) for q in split.questions if q.image in position),
    )
