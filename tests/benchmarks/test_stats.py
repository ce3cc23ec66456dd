from __future__ import annotations

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
    assert 0.3 < drop.low < 1.0 < drop.high < 1.8
    same = paired_drop(before, before)
    assert (same.value, same.low, same.high) == (0, 0, 0)


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


def test_median_interval_is_made_of_samples() -> None:
    figure = median_interval(np.arange(101, dtype=np.float64))
    assert figure.value == 50
    assert 35 < figure.low < 50 < figure.high < 65
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval(np.zeros(0))
