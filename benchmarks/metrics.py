"""Accuracy of a dual encoder from its embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import Weights, bootstrap
from sdk.label_set import Grouping
from sdk.manifest import Figure

Vectors = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Resampled(ABC):
    """A statistic of `n` images that can be made again of drawn ones, so that it has an interval."""

    n: int

    @abstractmethod
    def value(self, weights: Weights | None = None) -> float:
        """The statistic; `weights`, int64 (n,), says how often each image was drawn, None once each."""

    def figure(self, draws: int = 300) -> Figure:
        """The statistic with its 95 % bootstrap interval over images."""
        low, high = bootstrap(self.value, self.n, draws=draws)
        return Figure(self.value(), low, high, self.n)

    def drop_to(self, other: Resampled, draws: int = 300) -> Figure:
        """What is lost from this to `other` over the same images, with a paired bootstrap interval."""

        def lost(weights: Weights) -> float:
            return self.value(weights) - other.value(weights)

        low, high = bootstrap(lost, self.n, draws=draws)
        return Figure(self.value() - other.value(), low, high, self.n)


class Retrieval(Resampled):
    """Text-to-image retrieval: each class is a query, ranked over all images.

    `possible`, bool (N, K): classes the data does not rule out for an image. An image that might be relevant to a
    query but is not known to be is left out of that query's ranking, as "junk" images are in the Oxford protocol
    (Philbin et al. 2007). Queries without a relevant image are left out.
    """

    def __init__(
        self, images: Vectors, queries: Vectors, label: NDArray[np.int64], possible: NDArray[np.bool_]
    ) -> None:
        order = np.argsort(-(queries @ images.T), axis=1, kind="stable")
        every = np.arange(len(queries))[:, None]
        relevant = label[order] == every
        self._order = order
        self._counts = relevant | ~possible[order, every]
        self._hits = np.nonzero(relevant)  # by query, in the order of its ranking
        self.n = len(images)

    def value(self, weights: Weights | None = None) -> float:
        """`mean_average_precision`."""
        return self.mean_average_precision(weights)

    def mean_average_precision(self, weights: Weights | None = None) -> float:
        """mAP in 0..1: mean over queries of the mean precision at each relevant image; `weights` draws images."""
        drawn = np.ones(self.n, np.int64) if weights is None else weights
        rows, places = self._hits
        hits = drawn[self._order[rows, places]]
        total = np.bincount(rows, weights=hits, minlength=len(self._order))
        seen = np.cumsum(drawn[self._order] * self._counts, axis=1)[rows, places] - hits
        found = np.cumsum(hits) - hits - (np.cumsum(total) - total)[rows]
        precision = np.zeros(len(rows))
        for copy in range(1, int(hits.max(initial=0)) + 1):  # an image drawn twice takes two places in the ranking
            precision += np.where(hits >= copy, (found + copy) / (seen + copy), 0)
        sums = np.bincount(rows, weights=precision, minlength=len(self._order))
        average = sums[total > 0] / total[total > 0]
        return float(average.mean()) if len(average) else 0.0

    def found_in(self, k: int) -> Bools:
        """Of each query that has a relevant image: is one among the first k of its ranking? bool (queries,)."""
        rows, places = self._hits
        queries, first = np.unique(rows, return_index=True)
        rank = np.cumsum(self._counts, axis=1)[queries, places[first]]
        return np.asarray(rank <= k, np.bool_)


def coarse_right(scores: NDArray[np.float64], grouping: Grouping, label: NDArray[np.int64]) -> Bools:
    """Whether the best group is that of the label, bool over the images with a known label.

    `scores`: of the labels, (N, K), summed by group as the SDK does. `label`: int64 (N,), -1 where not known.
    """
    known = np.flatnonzero(label >= 0)
    best = grouping.summed(scores[known]).argmax(axis=1)
    return np.asarray(best == grouping.place[label[known]], np.bool_)


def question_only(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
    """Whether the most frequent training answer to the same question is right: what can be had without looking.

    Pairs are (question, answer). A question never seen in training gets the most frequent answer of all.
    """
    by_question: dict[str, dict[str, int]] = {}
    overall: dict[str, int] = {}
    for question, answer in train:
        counts = by_question.setdefault(question, {})
        counts[answer] = counts.get(answer, 0) + 1
        overall[answer] = overall.get(answer, 0) + 1
    guess = {question: max(counts, key=counts.__getitem__) for question, counts in by_question.items()}
    fallback = max(overall, key=overall.__getitem__)
    return np.array([guess.get(question, fallback) == answer for question, answer in test])
