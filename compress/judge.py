"""A student against its teacher on one engine: what was lost overall, and which classes, by tests that a good average
cannot hide from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.class_losses import ClassLoss, adjusted, changed_images, class_changes
from benchmarks.evalset import EvalSet
from benchmarks.evaluate import Result
from benchmarks.stats import paired_bootstrap, paired_drop
from sdk.manifest import Figure


@dataclass(frozen=True)
class Limits:
    """`drop` and `answer_drop`: points (0..100) of top-1 and of answers that may be lost; by a single class more, if it
    may be chance (p of at least `alpha`). `map_drop`: of text-to-image mAP (0..1).

    An average, too, may lose more if that may be chance: in a split of 30 images each is 3.3 points. Top-1 and answers
    may, while fewer than `fewest` images are lost, net; mAP, while its 95 % interval (a paired bootstrap) holds 0.
    """

    drop: float
    map_drop: float
    answer_drop: float
    alpha: float

    @property
    def fewest(self) -> int:
        """The fewest images that can be lost beyond chance: k, where k lost and none won have a one-sided p of 2**-k
        below `alpha` in McNemar's exact test: 5 for 0.05, and 0 for 0, where nothing is tested.

        Fewer can reach no such p, whatever else changed (Tarone 1990, Biometrics 46:515, on the least p that a discrete
        test can reach). All others count: with many changes both ways the test would let a real loss pass.
        """
        return math.floor(-math.log2(self.alpha)) + 1 if self.alpha else 0


@dataclass(frozen=True)
class Judgement:
    """`drop` has Newcombe's interval, `drop_bootstrap` is the same loss with that of a paired bootstrap; `answer_drop`
    draws the questions of an image together, and is None where nothing was asked. `failures`: a sentence for each
    limit that was exceeded. `towers`: those that may be to blame. `lost`: positions of the images on which something
    was right that is wrong now."""

    on: str
    n: int
    drop: Figure
    drop_bootstrap: Figure
    map_drop: Figure
    answer_drop: Figure | None
    classes: tuple[ClassLoss, ...]
    failures: tuple[str, ...]
    towers: frozenset[str]
    lost: frozenset[int]

    def metrics(self) -> dict[str, float]:
        """The figures by name: `drop`, `drop_low`, `drop_high`, and so on; `class_p` is the least of any class."""
        figures = {
            "drop": self.drop,
            "drop_bootstrap": self.drop_bootstrap,
            "map_drop": self.map_drop,
            "answer_drop": self.answer_drop,
        }
        found: dict[str, float] = {}
        for name, figure in figures.items():
            if figure is not None:
                found |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        return found | {"class_p": min((each.p for each in self.classes if each.lost > each.won), default=1.0)}


def judge(teacher: Result, student: Result, evalset: EvalSet, limits: Limits) -> Judgement:
    """Compare two results on the same evaluation set; both should come from the same engine.

    Raises ValueError when the set has no image with a known label.
    """
    known = np.flatnonzero(evalset.label >= 0)
    drop = paired_drop(teacher.correct, student.correct)
    lost_map = teacher.retrieval.drop_to(student.retrieval)
    labels = [evalset.labels[k] for k in evalset.label[known]]
    changes = class_changes("class", labels, known, teacher.correct, student.correct)
    answers, lost = None, set(known[teacher.correct & ~student.correct].tolist())
    changed = changed_images(known, teacher.correct, student.correct)
    losses = [*_average("class", drop, changed, limits)]
    if lost_map.value > limits.map_drop and (lost_map.low > 0 or not limits.alpha):
        losses.append((f"{lost_map.value:.4f} of mAP (at most {limits.map_drop:g})", {"image", "text"}))
    if teacher.answered is not None and student.answered is not None:
        asked = np.array([image for image, _, _ in evalset.questions], np.int64)
        answers = paired_bootstrap(teacher.answered, student.answered, asked)
        said = [answer for _, _, answer in evalset.questions]
        changes += class_changes("answer", said, asked, teacher.answered, student.answered)
        changed = changed_images(asked, teacher.answered, student.answered)
        losses += _average("answer", answers, changed, limits)
        lost |= set(asked[teacher.answered & ~student.answered].tolist())
    classes = adjusted(changes)
    losses += _ruined(classes, limits)
    return Judgement(
        on=student.cell.on,
        n=len(known),
        drop=drop,
        drop_bootstrap=paired_bootstrap(teacher.correct, student.correct),
        map_drop=lost_map,
        answer_drop=answers,
        classes=classes,
        failures=tuple(f"{student.cell.on} lost {text}" for text, _ in losses),
        towers=frozenset().union(*(towers for _, towers in losses)),
        lost=frozenset(lost),
    )


def _allowed(kind: str, limits: Limits) -> tuple[float, set[str]]:
    """Points that classes ("class") or answers ("answer") may lose, and the towers that take part in them."""
    return (limits.drop, {"image"}) if kind == "class" else (limits.answer_drop, {"image", "text", "fusion"})


def _average(kind: str, drop: Figure, images: tuple[int, int], limits: Limits) -> Iterator[tuple[str, set[str]]]:
    """What the average lost too much of, if it did. `images`: how many got worse and better."""
    allowed, towers = _allowed(kind, limits)
    if drop.value > allowed and images[0] - images[1] >= limits.fewest:
        yield f"{drop.value:.2f} points of {'top-1' if kind == 'class' else 'answers'} (at most {allowed:g})", towers


def _ruined(classes: tuple[ClassLoss, ...], limits: Limits) -> Iterator[tuple[str, set[str]]]:
    """Classes that lost more than the average may, and more than chance explains.

    Both: in a class of a thousand samples a few lost ones are no chance, and no harm either.
    """
    for each in classes:
        allowed, towers = _allowed(each.kind, limits)
        if each.p < limits.alpha and each.lost > each.won and each.points > allowed:
            yield (
                f"{each.points:.1f} points of the {each.kind} {each.name!r} (at most {allowed:g}; n = {each.n}, "
                f"{each.lost} images worse and {each.won} better, p = {each.p:.2g}, below {limits.alpha:g})",
                towers,
            )
