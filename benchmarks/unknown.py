"""None of these: does the best cosine tell things in the label bank from things that are not?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.evalset import EvalSet
from benchmarks.metrics import Bools, Resampled, Vectors
from benchmarks.stats import Weights
from sdk.tasks import cosines

FOLDS = 10
SEED = 0


class NoneOfThese(Resampled):
    """Photos of classes in the bank against photos of classes that were left out of it.

    `best`, float64 (F, n): the best cosine of each photo over the bank of each fold. `left_out`, bool (F, n): whether
    the fold's bank lacks the photo's class; each photo's is left out of one fold. `accepted`: is the best cosine over
    the whole bank at least the bundle's threshold? `refused`: is it below, over the bank that lacks the photo's class?
    Both bool (n,), None without a threshold.
    """

    def __init__(
        self, best: NDArray[np.float64], left_out: Bools, accepted: Bools | None = None, refused: Bools | None = None
    ) -> None:
        self._left_out = left_out
        self._places = [np.unique(row, return_inverse=True)[1] for row in best]  # equal cosines stand in one place
        self.n = best.shape[1]
        self.accepted = accepted
        self.refused = refused

    def value(self, weights: Weights | None = None) -> float:
        """`auroc`."""
        return self.auroc(weights)

    def auroc(self, weights: Weights | None = None) -> float:
        """Area under the ROC curve in 0..1, mean over folds: the share of pairs (a photo in the bank, a photo left
        out) in which the first has the higher cosine, ties counted half (Hanley and McNeil 1982, Radiology 143:29).

        `weights` draws photos. A fold without such a pair is left out; 0.5, chance, where there is none at all.
        """
        drawn = np.ones(self.n, np.int64) if weights is None else weights
        shares = []
        for place, out in zip(self._places, self._left_out, strict=True):
            known = np.bincount(place, weights=drawn * ~out)
            unknown = np.bincount(place, weights=drawn * out)
            pairs = known.sum() * unknown.sum()
            if pairs:
                below = np.cumsum(unknown) - unknown
                shares.append(float(known @ (below + unknown / 2)) / pairs)
        return float(np.mean(shares)) if shares else 0.5


def none_of_these(images: Vectors, bank: Vectors, evalset: EvalSet, threshold: float | None) -> NoneOfThese | None:
    """The folds of a set: its classes in a seeded order, a tenth at a time left out of the bank, each class once.

    `images` (N, D) and `bank` (K, D): unit norm. `threshold`: the bundle's cosine below which the answer is "none of
    these". None for sets that have no groups if there is no threshold either, and for sets with one class, or without
    photos of two.
    """
    known = np.flatnonzero(evalset.label >= 0)
    label = evalset.label[known]
    if (threshold is None and not any(evalset.groups)) or len(np.unique(label)) < 2:
        return None
    near = cosines(images[known], bank).astype(np.float64)
    classes = np.random.default_rng(SEED).permutation(len(bank))
    folds = [np.isin(np.arange(len(bank)), part) for part in np.array_split(classes, min(FOLDS, len(bank)))]
    best = np.stack([np.where(fold, -np.inf, near).max(axis=1) for fold in folds])
    left_out = np.stack([fold[label] for fold in folds])
    if threshold is None:
        return NoneOfThese(best, left_out)
    without = best[left_out.argmax(axis=0), np.arange(len(label))]
    return NoneOfThese(best, left_out, near.max(axis=1) >= threshold, without < threshold)
