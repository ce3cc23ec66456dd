from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.stats import bootstrap, median_interval, paired_drop, wilson


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    figure = wilson(np.arange(263) < 81)
    assert (round(figure.low, 4), round(figure.high, 4)) == (0.2553, 0.3662)
    none = wilson(np.zeros(20, bool))
    assert (none.low, round(none.high, 4), none.n) == (0.0, 0.1611, 20)


def test_wilson_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        wilson(np.zeros(0, bool))


def test_paired_drop_counts_only_what_changed() -> None:
    before, after = np.ones(1000, bool), np.ones(1000, bool)
    after[:10] = False
    drop = paired_drop(before, after)
    assert drop.value == pytest.approx(1.0)
    assert 0.3 < drop.low < 1.0 < drop.high < 2.0


def test_paired_drop_is_not_certain_when_nothing_changed() -> None:
    same = paired_drop(np.ones(353, bool), np.ones(353, bool))
    assert same.value == 0
    assert same.low == pytest.approx(-same.high)
    assert 0.5 < same.high < 1.6  # 353 right answers out of 353 still allow about a point


def test_paired_drop_by_hand() -> None:
    """Newcombe's method 10 worked out for 43 both right, 20 lost, 7 won, 30 both wrong."""
    before = np.array([True] * 63 + [False] * 37)
    after = np.array([True] * 43 + [False] * 20 + [True] * 7 + [False] * 30)
    drop = paired_drop(before, after)
    phi = (43 * 30 - 20 * 7 - 50) / math.sqrt(63 * 37 * 50 * 50)
    (low1, high1), (low2, high2) = (0.53219, 0.71821), (0.40383, 0.59617)  # Wilson, 63 and 50 of 100
    below = math.sqrt((0.63 - low1) ** 2 - 2 * phi * (0.63 - low1) * (high2 - 0.5) + (high2 - 0.5) ** 2)
    above = math.sqrt((high1 - 0.63) ** 2 - 2 * phi * (high1 - 0.63) * (0.5 - low2) + (0.5 - low2) ** 2)
    assert (drop.low, drop.high) == (
        pytest.approx(13 - 100 * below, abs=0.01),
        pytest.approx(13 + 100 * above, abs=0.01),
    )


def test_paired_drop_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        before = rng.random(150) < 0.97
        after = before & (rng.random(150) < 0.98)  # the truth is 0.97 * 0.02
        drop = paired_drop(before, after)
        hits += drop.low <= 100 * 0.97 * 0.02 <= drop.high
    assert hits >= 370


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        values = rng.normal(size=60)
        low, high = bootstrap(lambda w, v=values: float(w @ v / w.sum()), 60, draws=200, seed=trial)
        hits += low <= 0 <= high
    assert 86 <= hits <= 100


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(1).normal(size=30)

    def mean(weights: np.ndarray) -> float:
        return float(weights @ values / weights.sum())

    assert bootstrap(mean, 30, seed=4) == bootstrap(mean, 30, seed=4)


def test_median_interval_has_exact_ranks() -> None:
    # From a table of the binomial: for n = 16 the 4th and the 13th, for 6 the ends.
    sixteen = median_interval(np.arange(1.0, 17.0))
    assert (sixteen.low, sixteen.high) == (4, 13)
    six = median_interval(np.arange(1.0, 7.0))
    assert (six.low, six.high) == (1, 6)
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval(np.zeros(0))
