"""Where the time of an answer goes: decode, resize, image, text, fuse, and from file to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TypeVar

import numpy as np

import sdk
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import add_labels
from benchmarks.programs import Model
from sdk.bundle import Bundle
from sdk.resize import Frame, prepare
from sdk.text import Tokenizer

T = TypeVar("T")
# How many different files, frames and texts a call walks through, so that no cache answers for the machine.
VARIETY = 32


def frames_of(evalset: EvalSet) -> list[Frame]:
    """Decoded images of a set: uint8 (H, W, 3) RGB, at most VARIETY of them. Raises FeedError."""
    return [sdk.read_frame(path) for path in spread(evalset.images)]


def prepared(frame: Frame, bundle: Bundle) -> Frame:
    """A frame at the bundle's size: uint8 (S, S, 3)."""
    spec = bundle.manifest.image
    return prepare(frame, spec.size, spec.resize, spec.crop)


def stage_calls(model: Model, evalset: EvalSet, frames: Sequence[Frame]) -> dict[str, Callable[[], object]]:
    """One call per stage that the model has; each takes its next input from `frames` or the set.

    `decode`: image file to pixels. `resize`: pixels to the model's square. `image`, `fuse`: a tower on prepared feeds.
    `text`: a phrase to its tokens and through its tower.
    """
    bundle = model.bundle
    feeds = [{"image": prepared(frame, bundle)[None]} for frame in frames]
    calls: dict[str, Callable[[], object]] = {
        "decode": _over(sdk.read_frame, spread(evalset.images)),
        "resize": _over(lambda frame: prepared(frame, bundle), frames),
        "image": _over(lambda feed: model.run("image", feed), feeds),
    }
    tokenizer = Tokenizer.of(bundle)
    phrases = [prompt for label in evalset.labels for prompt in evalset.prompts[label]]
    texts = list(dict.fromkeys([*phrases, *(question for _, question, _ in evalset.questions)]))

    def read(text: str) -> dict[str, np.ndarray]:
        tokens = tokenizer([text])
        return model.run("text", {"ids": tokens.ids, "mask": tokens.mask})

    calls["text"] = _over(read, spread(texts))
    if bundle.manifest.fusion is not None:
        tokens = tokenizer(texts[-1:])
        asked = model.run("text", {"ids": tokens.ids, "mask": tokens.mask})["tokens"]
        fused = [{"image": model.run("image", feed)["tokens"], "text": asked, "mask": tokens.mask} for feed in feeds]
        calls["fuse"] = _over(lambda feed: model.run("fusion", feed), fused)
    return calls


def end_to_end_calls(model: Model, evalset: EvalSet) -> dict[str, Callable[[], object]]:
    """From an image file to an answer: `classify` over the bundle's bank, to which the set's labels are added, `ask`
    with questions that come again."""
    add_labels(model, evalset)
    classify, files = model.task("classify"), spread(evalset.images)
    calls: dict[str, Callable[[], object]] = {"classify": _over(classify, files)}
    questions = list(dict.fromkeys(question for _, question, _ in evalset.questions))
    if questions and "ask" in model.bundle.manifest.tasks:
        ask = model.task("ask")
        pairs = [(files[i % len(files)], questions[i % len(questions)]) for i in range(VARIETY)]
        calls["ask"] = _over(lambda pair: ask(*pair), pairs)
    return calls


def _over(call: Callable[[T], object], values: Sequence[T]) -> Callable[[], object]:
    turn = cycle(values)
    return lambda: call(next(turn))


def spread(values: Sequence[T]) -> list[T]:
    """At most VARIETY of the values, from all over."""
    step = max(1, len(values) // VARIETY)
    return list(values[::step][:VARIETY])
