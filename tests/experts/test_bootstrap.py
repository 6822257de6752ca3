"""Bootstrap intervals: they cover what they should, and are what a slow loop finds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.experts import bootstrap
from veche.experts.bootstrap import difference_interval, mean_interval, median_bounds

FINITE = st.floats(-1e3, 1e3)


def slow_interval(values, level, resamples, seed):
    """Resample one piece after another, and read the quantiles off the sorted means."""
    rng = np.random.default_rng(seed)
    means = sorted(
        math.fsum(values[int(rng.integers(0, len(values)))] for _ in values) / len(values)
        for _ in range(resamples)
    )

    def quantile(share):
        place = share * (resamples - 1)
        below = math.floor(place)
        above = min(below + 1, resamples - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


@pytest.mark.parametrize("count", [2, 7, 40])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_it_is_what_a_slow_loop_finds(count, level):
    values = np.random.default_rng(count).normal(size=count)
    found = mean_interval(values, level=level, resamples=300, seed=5)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    assert found.as_list() == pytest.approx(slow_interval(values, level, 300, 5), abs=1e-12)


def test_how_many_samples_are_in_memory_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=33)
    whole = mean_interval(values, resamples=101)
    monkeypatch.setattr(bootstrap, "_INDICES", 70)
    assert mean_interval(values, resamples=101) == whole


@pytest.mark.parametrize(
    ("count", "draw", "at_least", "at_most"),
    [
        (8, "normal", 0.85, 0.91),
        (16, "normal", 0.89, 0.94),
        (100, "normal", 0.92, 0.96),
        (100, "exponential", 0.91, 0.96),
    ],
)
def test_it_covers_a_known_mean_as_often_as_promised(count, draw, at_least, at_most):
    rng, mean = np.random.default_rng(17), {"normal": 0.0, "exponential": 1.0}[draw]
    trials = 3000
    intervals = [
        mean_interval(getattr(rng, draw)(size=count), resamples=300, seed=trial)
        for trial in range(trials)
    ]
    covered = sum(each.low <= mean <= each.high for each in intervals) / trials
    assert at_least < covered < at_most


def test_it_comes_to_the_normal_interval_for_many_pieces():
    values = np.random.default_rng(1).exponential(size=4000)
    found = mean_interval(values, resamples=4000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_a_difference_is_of_pairs():
    rng = np.random.default_rng(2)
    hard = rng.normal(scale=10, size=30)
    first, second = hard, hard + 0.1 + rng.normal(scale=0.01, size=30)
    found = difference_interval(first, second)
    assert found.is_above_zero
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.high - found.low < 0.02
    assert difference_interval(second, first).is_below_zero
    assert difference_interval(second, first).mean == pytest.approx(-found.mean)


@given(st.lists(FINITE, min_size=2, max_size=12), FINITE, st.floats(0.1, 10))
def test_shift_and_scale_carry_over(values, shift, scale):
    base = mean_interval(values, resamples=50)
    moved = mean_interval([shift + scale * value for value in values], resamples=50)
    for name in ("mean", "low", "high"):
        assert getattr(moved, name) == pytest.approx(
            shift + scale * getattr(base, name), rel=1e-9, abs=1e-6
        )
    assert min(values) - 1e-9 <= base.low <= base.high <= max(values) + 1e-9


def test_a_wider_level_holds_the_narrower():
    values = np.random.default_rng(3).normal(size=20)
    narrow, wide = (mean_interval(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_equal_pieces_leave_no_doubt_and_one_piece_leaves_all():
    assert mean_interval([0.25] * 5).as_list() == [0.25, 0.25]
    alone = mean_interval([0.25])
    assert alone.mean == 0.25
    assert all(map(math.isnan, alone.as_list()))
    assert not alone.is_above_zero
    assert not alone.is_below_zero


def test_a_nan_is_not_hidden():
    found = mean_interval([1.0, math.nan, 2.0])
    assert all(map(math.isnan, (found.mean, found.low, found.high)))


def test_the_bounds_of_a_median_care_little_for_one_wild_round():
    rounds = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 7.0]
    low, high = median_bounds(rounds)
    assert 0.98 <= low <= 1.0 <= high <= 1.02
    assert all(map(math.isnan, median_bounds([1.0])))


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, math.nan])
def test_a_level_outside_of_0_and_1_is_a_mistake(level):
    with pytest.raises(ValueError, match="level"):
        mean_interval([1.0, 2.0], level=level)


def test_no_pieces_or_other_pieces_are_a_mistake():
    with pytest.raises(ValueError, match="no interval"):
        mean_interval([])
    with pytest.raises(ValueError, match="paired"):
        difference_interval([1.0], [1.0, 2.0])
