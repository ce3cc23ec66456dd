from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from benchmarks.stats import (
    bootstrap,
    clustered,
    clustered_drop,
    holm,
    mcnemar,
    median_interval,
    paired_bootstrap,
    paired_drop,
    reaches,
    wilson,
)


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


def test_paired_bootstrap_counts_what_changed_and_nothing_else() -> None:
    before = np.arange(400) % 2 == 0
    after = before.copy()
    after[:20] = False  # ten of them were right
    drop = paired_bootstrap(before, after)
    assert (drop.value, drop.n) == (2.5, 400)
    assert 0.9 < drop.low < 1.6  # 2.5 points, standard error 0.78
    assert 3.8 < drop.high < 4.4
    same = paired_bootstrap(before, before)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert paired_bootstrap(before, after, seed=3) == paired_bootstrap(before, after, seed=3)


def test_paired_bootstrap_draws_groups_whole() -> None:
    """Ten questions of an image that go wrong together are one piece of bad luck, not ten."""
    image = np.repeat(np.arange(100), 10)
    before, after = np.ones(1000, bool), image >= 10
    alone, together = paired_bootstrap(before, after), paired_bootstrap(before, after, image)
    assert alone.value == together.value == 10
    wider = (together.high - together.low) / (alone.high - alone.low)
    assert wider == pytest.approx(math.sqrt(10), rel=0.1)
    shuffled = np.random.default_rng(0).permutation(1000)
    assert paired_bootstrap(before[shuffled], after[shuffled], image[shuffled]) == together


def test_paired_bootstrap_of_groups_of_unequal_size_weighs_samples() -> None:
    image = np.array([0] * 6 + [1, 2, 3, 4])
    after = np.array([False] * 6 + [True] * 4)
    drop = paired_bootstrap(np.ones(10, bool), after, image)
    assert drop.value == pytest.approx(60)
    assert (drop.low, drop.high) == (0, pytest.approx(100 * 18 / 20, abs=8))


def test_paired_bootstrap_covers_the_truth_of_clustered_answers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = {"clustered": 0, "not": 0}
    image = np.repeat(np.arange(80), 5)
    for trial in range(100):
        lost = np.repeat(rng.random(80) < 0.1, 5)  # all five answers of an image go, or none
        for name, groups in (("clustered", image), ("not", None)):
            drop = paired_bootstrap(np.ones(400, bool), ~lost, groups, draws=200, seed=trial)
            hits[name] += drop.low <= 10 <= drop.high
    assert hits["clustered"] >= 85
    assert hits["not"] < 75


@pytest.mark.parametrize(
    ("before", "after", "groups"), [((), (), None), ((True,), (True, False), None), ((True,), (True,), (1, 2))]
)
def test_paired_bootstrap_wants_pairs(before: tuple, after: tuple, groups: tuple | None) -> None:
    rows = None if groups is None else np.array(groups, np.int64)
    with pytest.raises(ValueError, match="at least one sample, and as many after"):
        paired_bootstrap(np.array(before, bool), np.array(after, bool), rows)


def test_mcnemar_against_every_way_that_coins_can_fall() -> None:
    for n in range(11):
        ways = [sum(coins) for coins in itertools.product((0, 1), repeat=n)]
        for lost in range(n + 1):
            as_uneven = sum(abs(heads - n / 2) >= abs(lost - n / 2) for heads in ways) / len(ways)
            assert mcnemar(lost, n - lost) == pytest.approx(as_uneven, abs=1e-12)


def test_mcnemar_against_known_values() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(14, 0) == 2**-13
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(0.021484375)  # binom.test(1, 10) in R
    # Far beyond float: near the square of 1000 fair coins' tails, and no overflow.
    assert mcnemar(3000, 2800) == pytest.approx(math.erfc(199 / math.sqrt(5800) / math.sqrt(2)), rel=0.01)
    assert 0 <= mcnemar(20000, 0) < 1e-300


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="counted from 0, got -1 lost and 2 won"):
        mcnemar(-1, 2)


def test_holm_against_known_values() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") in R.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.5]) == (1, 1)
    assert holm([0.2]) == (0.2,)
    assert holm([]) == ()


def test_holm_against_the_definition() -> None:
    """Adjusted p of a test = the smallest alpha at which Holm's step-down procedure rejects it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = rng.random(5) ** 3
        for alpha in (0.01, 0.05, 0.2, 0.5):
            rejected: set[int] = set()
            for rank, index in enumerate(np.argsort(found)):
                if found[index] > alpha / (5 - rank):
                    break
                rejected.add(int(index))
            assert {i for i, p in enumerate(holm(found.tolist())) if p <= alpha} == rejected


def test_a_share_of_clusters_is_less_certain_than_of_samples() -> None:
    image = np.repeat(np.arange(100), 4)
    whole = image < 80  # all questions about an image are right, or none is
    figure, alone = clustered(whole, image), wilson(whole)
    assert (figure.value, figure.n) == (0.8, 400)
    by_image = wilson(np.arange(100) < 80)
    assert figure.low == pytest.approx(by_image.low, abs=0.02)
    assert figure.high == pytest.approx(by_image.high, abs=0.02)
    assert figure.high - figure.low > 1.7 * (alone.high - alone.low)
    shuffled = np.random.default_rng(0).permutation(400)
    assert clustered(whole[shuffled], image[shuffled]) == figure


def test_a_share_of_clusters_that_are_all_alike_is_not_certain() -> None:
    image = np.repeat(np.arange(20), 5)
    figure, by_image = clustered(np.ones(100, bool), image), wilson(np.ones(20, bool))
    assert (figure.value, figure.low, figure.high, figure.n) == (1.0, by_image.low, 1.0, 100)
    assert clustered(np.tile([True, False], 10), np.repeat(np.arange(10), 2)).low < 0.3


def test_a_share_of_clusters_covers_the_truth_as_often_as_it_says() -> None:
    rng, image, hits = np.random.default_rng(4), np.repeat(np.arange(120), 3), 0
    for trial in range(200):
        rate = rng.choice([0.4, 1.0], 120)  # the truth is 0.7
        figure = clustered(rng.random(360) < np.repeat(rate, 3), image, draws=200, seed=trial)
        hits += figure.low <= 0.7 <= figure.high
    assert hits / 200 > 0.9


@pytest.mark.parametrize(("correct", "groups"), [((), ()), ((True,), (0, 1))])
def test_a_share_of_clusters_wants_as_many_groups(correct: tuple[bool, ...], groups: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a clustered share needs at least one sample, and as many groups"):
        clustered(np.array(correct, bool), np.array(groups, np.int64))


def test_a_drop_of_clusters_where_none_changed_counts_clusters() -> None:
    image, right = np.repeat(np.arange(24), 2), np.ones(48, bool)
    same, by_image = clustered_drop(right, right, image), paired_drop(np.ones(24, bool), np.ones(24, bool))
    assert (same.value, same.low, same.high, same.n) == (0.0, by_image.low, by_image.high, 48)
    worse = right.copy()
    worse[[0, 1, 2, 3]] = False  # both questions about two images
    scattered = right.copy()
    scattered[[0, 2, 4, 6]] = False  # one question about each of four
    lost, other = clustered_drop(right, worse, image), clustered_drop(right, scattered, image)
    assert lost.value == other.value == pytest.approx(100 * 4 / 48)
    assert lost.high - lost.low > other.high - other.low


def test_how_many_samples_an_interval_of_a_quantile_needs() -> None:
    assert [next(n for n in range(1000) if reaches(share, n)) for share in (0.5, 0.9, 0.99)] == [6, 36, 368]
