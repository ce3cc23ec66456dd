"""Questions about a frame: tokens of the image and of the question, fused, choose one of the bundle's answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError, Unavailable
from sdk.golden import softmax
from sdk.tasks import Answer, Scene, one_or_many

# Questions whose tokens are kept, the least recently used out: that many, and no more than so many bytes of tokens.
_REMEMBERED = 256
_REMEMBERED_BYTES = 64 << 20


@dataclass(frozen=True)
class Question:
    """A question as the fusion tower takes it: `tokens` float32 (1, L, F), `mask` int64 (1, L); see Answer for both
    counts."""

    tokens: NDArray[np.float32]
    mask: NDArray[np.int64]
    unknown: int
    cut: int


def task(scene: Scene) -> Callable[..., Answer | list[Answer]]:
    """`(frame, question, color="rgb") -> Answer`; a list of questions gives a list of answers.

    The image tower runs once for all questions, the fusion tower once for each, and the text tower only for those that
    are not remembered. Raises FeedError; Unavailable in a bundle without a fusion tower.
    """
    spec = scene.bundle.manifest.fusion
    if spec is None:
        raise Unavailable(f"{scene.bundle.path} has no fusion tower, which the task 'ask' needs; ask its maker")
    questions = Questions(scene, spec.width)

    def ask(frame: object, question: str | Sequence[str], color: str = "rgb") -> Answer | list[Answer]:
        texts, alone = _checked(question)
        feed = scene.embed.prepare(_one(frame), color)[None]
        if not texts:
            return []
        asked = questions.read(texts)
        image = scene.run("image", {"image": feed})["tokens"]
        answers = []
        for each in asked:
            logits = scene.run("fusion", {"image": image, "text": each.tokens, "mask": each.mask})["logits"]
            answers.append(best(logits, spec.answers, each))
        return answers[0] if alone else answers

    return ask


class Questions:
    """Questions of one student, read once and remembered: apps ask the same ones of every frame. Thread-safe."""

    def __init__(self, scene: Scene, width: int) -> None:
        text = scene.bundle.manifest.text
        bytes_each = 4 * width * (text.length if text else 1)
        self._room = max(1, min(_REMEMBERED, _REMEMBERED_BYTES // bytes_each))
        self._scene = scene
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, Question] = OrderedDict()

    def read(self, texts: Sequence[str]) -> list[Question]:
        """The questions `texts`, in order; the text tower runs only for those that are new. Raises FeedError."""
        with self._lock:
            known = {text: self._seen[text] for text in texts if text in self._seen}
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        if fresh:  # outside the lock: questions that are known need not wait for these
            known |= self._embedded(fresh)
        with self._lock:
            for text in texts:
                self._seen[text] = known[text]
                self._seen.move_to_end(text)
            while len(self._seen) > self._room:
                self._seen.popitem(last=False)
        return [known[text] for text in texts]

    def _embedded(self, texts: Sequence[str]) -> dict[str, Question]:
        tokens = self._scene.embed.tokens(texts)
        rows = self._scene.run("text", {"ids": tokens.ids, "mask": tokens.mask})["tokens"]
        return {
            text: Question(rows[[i]], tokens.mask[[i]], tokens.unknown[i], tokens.cut[i])  # copies: no row keeps all
            for i, text in enumerate(texts)
        }


def best(logits: NDArray[np.float32], answers: Sequence[str], question: Question) -> Answer:
    """The most likely answer of logits (1, A), with its softmax score; of equals the first. Raises Unavailable."""
    if not np.isfinite(logits).all():
        raise Unavailable("the fusion tower gave non-finite logits; run: python -m sdk verify BUNDLE")
    row = softmax(logits)[0]
    index = int(row.argmax())
    return Answer(answers[index], float(row[index]), question.unknown, question.cut)


def _one(frame: object) -> object:
    if isinstance(frame, Iterator) or not one_or_many(frame)[1]:
        kind = "4-D array" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise FeedError(
            f"ask takes one frame with its questions, but a {kind} came; "
            "ask of one at a time: [student.ask(frame, question) for frame in frames]"
        )
    return frame


def _checked(question: object) -> tuple[list[str], bool]:
    """Questions as a list, and whether one came alone."""
    if not isinstance(question, str | list | tuple):
        raise FeedError(f"wanted a question as str, or a list of them, but a {type(question).__name__} came")
    alone = isinstance(question, str)
    texts = [question] if isinstance(question, str) else list(question)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise FeedError(
                f"wanted a question that is a str and not empty, but {text!r:.60} came; write it out: 'what is this?'"
            )
    return texts, alone
