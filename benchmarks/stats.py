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
    """Points (0..100) of accuracy lost from `before` to `after`, bool (n,) over the same samples; the 95 % interval is
    that of Newcombe 1998 (Statistics in Medicine 17:2635, method 10).

    Not a bootstrap: where no answer changed, that says [0, 0], as if n samples could show that none ever will.
    """
    one, two = wilson(before), wilson(after)
    n = one.n
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    covariance: float = both * neither - lost * won
    if covariance > 0:
        covariance = max(covariance - n / 2, 0)
    phi = covariance / math.sqrt(margins) if margins else 0.0
    difference = one.value - two.value

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    low = difference - half(one.value - one.low, two.high - two.value)
    high = difference + half(one.high - one.value, two.value - two.low)
    return Figure(100 * difference, 100 * low, 100 * high, n)


def median_interval(values: NDArray[np.float64]) -> Figure:
    """Median with a distribution-free interval of at least 95 %: order statistics at exact binomial ranks.

    With fewer than 6 samples no two of them reach 95 %; then it is their whole range. Raises ValueError for none.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if n == 0:
        raise ValueError("a median needs at least one sample")
    rank = _binomial_rank(n)
    return Figure(float(np.median(ordered)), float(ordered[rank]), float(ordered[n - 1 - rank]), n)


def _binomial_rank(n: int) -> int:
    """How many samples may be left out on each side: k - 1 for the largest k with P(Binomial(n, 1/2) < k) <= 0.025."""
    if n > 1000:  # the normal approximation, rounded outwards: exact sums get slow, and it is within a rank there
        return math.floor(n / 2 - Z95 * math.sqrt(n) / 2) - 1
    limit, total, k = 2**n * 25 // 1000, 0, 0
    while total + math.comb(n, k) <= limit:
        total += math.comb(n, k)
        k += 1
    return max(0, k - 1)
