"""Which frames, texts and questions a bundle proves itself with: what is easy to tell apart, and one frame that is hard
on int8 arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import runtimes
from compress.data import Label
from compress.draft import ModelFiles
from compress.engines import FAMILIES, parse_variant
from compress.saturation import saturation_damage
from runtimes import Array, Session, Target
from sdk.golden import output_error, softmax, unit_rows
from sdk.resize import Frame, prepare
from sdk.text import Tokenizer, Tokens

# Times what engines differ by: what a device may differ by.
ROOM = 4.0
# Pixels a side that a golden frame shows; more of a photo proves no more, and is most of golden.npz.
DETAIL = 96


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle besides the model. `golden` samples each are chosen from `frames`, uint8 (H, W, 3), from
    `texts`, the first half of them from its beginning, and from `questions`.
    """

    name: str
    labels: tuple[Label, ...]
    templates: tuple[str, ...]
    golden: int
    frames: Sequence[Frame]
    texts: tuple[str, ...]
    questions: tuple[str, ...]
    licence: str
    provenance: Mapping[str, str]


def golden_samples(
    model: ModelFiles, contents: Contents, tokenizer: Tokenizer, targets: Sequence[Target]
) -> tuple[list[Frame], list[str]]:
    """Frames and texts that the float towers tell apart best: an engine that is a little off must not confuse them.

    Of the frames, those on which engines agree best: on some, bf16 alone turns a vector. The first of them is sampled
    when it is resized, the second takes the exact mean, the others have the model's size.
    """
    size, tokens, count = model.image.size, tokenizer(contents.texts), len(contents.frames)
    few = max(1, count // 8)
    frames = golden_frames(contents.frames, size, few)
    images = np.stack([prepare(frame, size, model.image.resize, model.image.crop) for frame in frames])
    apart = np.max([disagreement(path, images, targets) for path in model.graphs["image"].values()], axis=0)
    steady = [
        place
        for places, kept in (
            (range(few), 1),
            (range(few, 2 * few), 1),
            (range(2 * few, count), max(contents.golden, count // 2) - 2),
        )
        for place in sorted(places, key=apart.__getitem__)[:kept]
    ]
    texts = {"ids": tokens.ids, "mask": tokens.mask}
    chosen = _far_apart(model, "image", {"image": images[steady]}, targets[0], contents.golden, 2)
    words = _far_apart(model, "text", texts, targets[0], contents.golden, contents.golden // 2)
    return [frames[steady[place]] for place in chosen], [contents.texts[place] for place in words]


def golden_frames(frames: Sequence[Frame], size: int, few: int) -> list[Frame]:
    """Frames, uint8 (H, W, 3), as golden.npz may keep them: the first `few` so large, about 4.25 x 6 times `size`, that
    the resize halves and samples them, the next `few` so that they take the exact mean, the others at the model's size.
    """
    # Odd: the last row and column are dropped in halving. Wide: samples then differ clearly from the mean.
    sides = [((4 * size + size // 4) | 1, 6 * size | 1)] * few + [(size + size // 4, size + size // 2)] * few
    sides += [(size, size)] * len(frames)
    return [_shown(frame, size, *shape) for frame, shape in zip(frames, sides, strict=False)]


def _shown(frame: Frame, size: int, height: int, width: int) -> Frame:
    """A frame at no more than DETAIL, with so many pixels: repeated ones deflate to next to nothing."""
    little = prepare(frame, min(size, DETAIL))
    return np.asarray(cv2.resize(little, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _far_apart(
    model: ModelFiles, tower: str, feeds: Mapping[str, Array], target: Target, count: int, kept: int
) -> list[int]:
    with runtimes.open_session(target, model.graphs[tower]["fp32"], precision="f32") as session:
        return farthest(unit_rows(run_rows(session, feeds)["embedding"]), count, kept)


def farthest(vectors: Array, count: int, kept: int) -> list[int]:
    """Positions of `count` of the unit rows (N, D) that are far from each other, the first `kept` among them: each is
    the one farthest from all before (Gonzalez 1985, Theoretical Computer Science 38).
    """
    chosen = list(range(min(kept, count)))
    nearest = (vectors @ vectors[chosen].T).max(axis=1)
    while len(chosen) < min(count, len(vectors)):
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen


def golden_questions(model: ModelFiles, images: Array, questions: Tokens, target: Target) -> dict[str, Array]:
    """Feeds of the fusion: for as many pairs of image and question as there are images, uint8 (M, S, S, 3), the tokens
    that the float towers make of them. Of all pairs those answered most surely, each with another answer if possible:
    an engine that is a little off must not flip them.
    """
    with contextlib.ExitStack() as stack:
        opened = {
            tower: stack.enter_context(runtimes.open_session(target, variants["fp32"], precision="f32"))
            for tower, variants in model.graphs.items()
        }
        seen = run_rows(opened["image"], {"image": images})["tokens"]
        read = run_rows(opened["text"], {"ids": questions.ids, "mask": questions.mask})["tokens"]
        pairs = [(i, q) for q in range(len(read)) for i in range(len(seen))]
        rows = ([i for i, _ in pairs], [q for _, q in pairs])
        feeds = {"image": seen[rows[0]], "text": read[rows[1]], "mask": questions.mask[rows[1]]}
        logits = run_rows(opened["fusion"], feeds)["logits"]
    sure = np.argsort(-gaps(logits), kind="stable")
    answers = logits.argmax(axis=1)
    _, first = np.unique(answers[sure], return_index=True)
    ahead = sure[np.sort(first)]
    chosen = [*ahead, *(place for place in sure if place not in ahead)][: len(images)]
    return {f"feed/fusion/{name}": array[chosen] for name, array in feeds.items()}


def gaps(logits: Array) -> Array:
    """By how much the best answer's probability leads the second's, float64 (N,), of logits (N, answers)."""
    ordered = np.sort(softmax(logits), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def worst_case(model: ModelFiles, targets: Sequence[Target]) -> Frame:
    """The frame, uint8 (S, S, 3), among extremes on which saturating int8 arithmetic does the most damage, beyond what
    the engines here differ by on it: on a frame far from all images, bf16 alone may turn a vector.
    """
    size = model.image.size
    corners = [np.array(corner, np.uint8) * np.uint8(255) for corner in np.ndindex(2, 2, 2)]
    board = np.indices((size, size)).sum(axis=0) % 2 * 255
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (size, size, 3))
    frames = [np.full((size, size, 3), corner, np.uint8) for corner in corners]
    frames += [np.repeat(board.astype(np.uint8)[:, :, None], 3, axis=2), noise]
    variants = model.graphs["image"]
    int8 = [path for name, path in variants.items() if parse_variant(name)[0] == "int8"]
    # A float graph does not saturate; then the frame on which engines agree best will do.
    damage = np.array(saturation_damage(int8[0], frames)) if int8 else np.zeros(len(frames))
    shared = [path for name, path in variants.items() if set(parse_variant(name)[1]) & set(FAMILIES)]
    apart = np.max([disagreement(path, np.stack(frames), targets) for path in shared], axis=0)
    # A frame that gives a zero vector has infinite damage, and proves nothing.
    worth = np.where(np.isfinite(damage), damage, -np.inf) - ROOM * apart
    return frames[int(np.argmax(worth))]


def disagreement(path: Path, images: Array, targets: Sequence[Target]) -> Array:
    """Per image, uint8 (N, S, S, 3): the largest error of any engine's default arithmetic against the first in f32."""
    with runtimes.open_session(targets[0], path, precision="f32") as session:
        wanted = run_rows(session, {"image": images})
    found = np.zeros(len(images))
    for target in targets:
        with runtimes.open_session(target, path) as session:
            got = run_rows(session, {"image": images})
        for port, rows in got.items():
            each = [output_error(port, rows[i : i + 1], wanted[port][i : i + 1]) for i in range(len(images))]
            found = np.maximum(found, each)
    return found


def run_rows(session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Port -> outputs of N rows of feeds, each run as a batch of one, as devices do."""
    count = len(next(iter(feeds.values())))
    rows = [session.run({n: a[i : i + 1] for n, a in feeds.items()}) for i in range(count)]
    return {port: np.concatenate([row[port] for row in rows]) for port in rows[0]}
