"""Intervals. A number without one says little about 1,000 images or 50 runs on a noisy machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sdk.manifest import Figure

Z95 = 1.959963984540054
Weights = NDArray[np.int64]


def wilson(correct: NDArray[np.bool_]) -> Figure:
    """A share in 0..1 with its 95 % Wilson score interval (Wilson 1927), which holds near 0 and 1 too.

    `correct`: bool (n,). Raises ValueError for n = 0.
    """
    if len(correct) == 0:
        raise ValueError("a share needs at least one sample")
    return _wilson(float(correct.mean()), len(correct))


def _wilson(p: float, n: int) -> Figure:
    z2 = Z95**2
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


def paired_bootstrap(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Figure:
    """Points (0..100) of accuracy lost from `before` to `after`, bool (n,), with the 95 % percentile interval of a
    paired bootstrap.

    `groups`, int64 (n,): samples that are not independent, as the questions about one image. They are drawn together
    (the cluster bootstrap, Davison and Hinkley 1997, section 3.8). Raises ValueError for none, or for unequal lengths.
    """
    if not len(before) or len({len(each) for each in (before, after, *(() if groups is None else (groups,)))}) > 1:
        raise ValueError("a paired bootstrap needs at least one sample, and as many after, and groups, as before")
    lost = 100 * (before.astype(np.int64) - after)
    _, place = np.unique(np.arange(len(before)) if groups is None else groups, return_inverse=True)
    total, size = np.bincount(place, weights=lost), np.bincount(place)
    low, high = bootstrap(lambda drawn: float(drawn @ total / (drawn @ size)), len(size), draws=draws, seed=seed)
    return Figure(float(lost.mean()), low, high, len(before))


def clustered(correct: NDArray[np.bool_], groups: NDArray[np.int64], *, draws: int = 2000, seed: int = 0) -> Figure:
    """A share in 0..1 of `correct`, bool (n,), with the 95 % percentile interval of a cluster bootstrap: samples of a
    group (`groups`, int64 (n,)) are drawn together, as in `paired_bootstrap`.

    Where all groups have the same share a bootstrap would say that it is certain; then the interval is Wilson's, with
    groups for samples. Raises ValueError for none, or for unequal lengths.
    """
    if not len(correct) or len(correct) != len(groups):
        raise ValueError("a clustered share needs at least one sample, and as many groups as samples")
    _, place = np.unique(groups, return_inverse=True)
    total, size = np.bincount(place, weights=correct), np.bincount(place)
    share = float(correct.mean())
    low, high = bootstrap(lambda drawn: float(drawn @ total / (drawn @ size)), len(size), draws=draws, seed=seed)
    if np.ptp(total / size) == 0:
        even = _wilson(share, len(size))
        low, high = even.low, even.high
    return Figure(share, low, high, len(correct))


def clustered_drop(before: NDArray[np.bool_], after: NDArray[np.bool_], groups: NDArray[np.int64]) -> Figure:
    """`paired_bootstrap` of groups; where no sample changed, `paired_drop` over groups, for that is not certain either.

    A group then counts as right when all its samples are. Raises ValueError as `paired_bootstrap` does.
    """
    drop = paired_bootstrap(before, after, groups)
    if (before != after).any():
        return drop
    _, place = np.unique(groups, return_inverse=True)
    right = np.bincount(place, weights=~before) == 0
    even = paired_drop(right, right)
    return Figure(0.0, even.low, even.high, drop.n)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947): would chance alone split what changed so unevenly?

    `lost`: pairs that were right before and are wrong after, `won`: the other way round. With no difference each of
    them is a fair coin's toss. Raises ValueError for a negative count.
    """
    if min(lost, won) < 0:
        raise ValueError(f"pairs that changed are counted from 0, got {lost} lost and {won} won")
    n, term, tail = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        tail += term
        term = term * (n - k) // (k + 1)  # the next binomial coefficient
    return min(1.0, 2 * tail / (1 << n))


def holm(pvalues: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for testing all of them (Holm 1979), in the order given.

    Calling those below alpha significant is wrong about any of them with a chance of at most alpha.
    """
    order = sorted(range(len(pvalues)), key=lambda index: pvalues[index])
    adjusted = [0.0] * len(pvalues)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        adjusted[index] = largest
    return tuple(adjusted)


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


def reaches(share: float, n: int) -> bool:
    """Whether n samples hold order statistics on both sides of a quantile (`share` in 0..1) that make up 95 %."""
    return max(share, 1 - share) ** n <= 0.025


def _binomial_rank(n: int) -> int:
    """How many samples may be left out on each side: k - 1 for the largest k with P(Binomial(n, 1/2) < k) <= 0.025."""
    if n > 1000:  # the normal approximation, rounded outwards: exact sums get slow, and it is within a rank there
        return math.floor(n / 2 - Z95 * math.sqrt(n) / 2) - 1
    limit, total, k = 2**n * 25 // 1000, 0, 0
    while total + math.comb(n, k) <= limit:
        total += math.comb(n, k)
        k += 1
    return max(0, k - 1)
