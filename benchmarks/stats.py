"""Intervals. A number without one says little about 1,000 images or 50 runs on a noisy machine."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sdk.manifest import Figure

Z95 = 1.959963984540054
Weights = NDArray[np.int64]


def wilson(correct: NDArray[np.bool_]) -> Figure:
    """A share in 0..1 with its 95 % Wilson score interval (Wilson 1927), which holds near 0 and 1 too.

    `correct`: bool (n,). Raises ValueError for n = 0.
    """
    n = len(correct)
    if n == 0:
        raise ValueError("a share needs at least one sample")
    p, z2 = float(correct.mean()), Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Figure(p, max(0.0, centre - half), min(1.0, centre + half), n)


def bootstrap(
    statistic: Callable[[Weights], float], n: int, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979).

    `statistic` gets how often each of the n samples was drawn, int64 (n,): two models scored with the same weights
    make it a paired bootstrap.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.multinomial(n, np.full(n, 1 / n))) for _ in range(draws)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Figure:
    """Points (0..100) of accuracy lost from `before` to `after`, bool (n,) over the same samples, paired bootstrap."""
    lost = before.astype(np.float64) - after.astype(np.float64)
    low, high = bootstrap(lambda weights: float(100 * (weights @ lost) / weights.sum()), len(lost))
    return Figure(float(100 * lost.mean()), low, high, len(lost))


def median_interval(values: NDArray[np.float64]) -> Figure:
    """Median with the exact 95 % interval from order statistics (binomial, no assumption on the distribution)."""
    ordered = np.sort(values)
    n = len(ordered)
    if n == 0:
        raise ValueError("a median needs at least one sample")
    half = Z95 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return Figure(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), n)
