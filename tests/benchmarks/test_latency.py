from __future__ import annotations

import numpy as np
import pytest

from benchmarks.latency import percentile
from benchmarks.stats import median_interval


def test_the_median_is_that_of_the_median_interval() -> None:
    values = np.random.default_rng(0).exponential(size=101)
    one, other = percentile(values, 0.5), median_interval(values)
    assert (one.value, one.n) == (other.value, 101)
    assert one.low == pytest.approx(other.low, rel=0.1)
    assert one.high == pytest.approx(other.high, rel=0.1)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_interval_covers_the_quantile_as_often_as_it_says(share: float) -> None:
    rng, truth = np.random.default_rng(1), -np.log1p(-share)
    drawn = (percentile(rng.exponential(size=600), share) for _ in range(400))
    covered = np.mean([each.low <= truth <= each.high for each in drawn])
    assert 0.93 <= covered <= 1


def test_too_few_samples_end_at_the_extremes() -> None:
    figure = percentile(np.arange(1.0, 21.0), 0.99)
    assert figure.high == 20
    assert figure.low < figure.value <= 20


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="a percentile needs at least one sample"):
        percentile(np.zeros(0), 0.5)
