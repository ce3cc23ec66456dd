"""Accuracy of a dual encoder from its embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import Weights, bootstrap
from sdk.manifest import Figure

Vectors = NDArray[np.float32]


class Retrieval:
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
        self._order = order
        self._relevant = label[order] == every
        self._counts = self._relevant | ~possible[order, every]
        self._n = len(images)

    def mean_average_precision(self, weights: Weights | None = None) -> float:
        """mAP in 0..1: mean over queries of the mean precision at each relevant image; `weights` draws images."""
        drawn = np.ones(self._n, np.int64) if weights is None else weights
        counted = drawn[self._order] * self._counts
        hits = counted * self._relevant
        seen, found = np.cumsum(counted, axis=1) - counted, np.cumsum(hits, axis=1) - hits
        precision = np.zeros(len(hits))
        for copy in range(1, int(hits.max(initial=0)) + 1):  # an image drawn twice takes two places in the ranking
            precision += np.where(hits >= copy, (found + copy) / (seen + copy), 0).sum(axis=1)
        total = hits.sum(axis=1)
        average = precision[total > 0] / total[total > 0]
        return float(average.mean()) if len(average) else 0.0

    def figure(self, draws: int = 300) -> Figure:
        """mAP with its 95 % bootstrap interval over images."""
        low, high = bootstrap(self.mean_average_precision, self._n, draws=draws)
        return Figure(self.mean_average_precision(), low, high, self._n)

    def drop_to(self, other: Retrieval, draws: int = 300) -> Figure:
        """mAP lost from this to `other` over the same images, with a paired bootstrap interval."""

        def lost(weights: Weights) -> float:
            return self.mean_average_precision(weights) - other.mean_average_precision(weights)

        low, high = bootstrap(lost, self._n, draws=draws)
        return Figure(self.mean_average_precision() - other.mean_average_precision(), low, high, self._n)


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
