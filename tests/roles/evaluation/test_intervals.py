"""Intervals over groups: how often they cover the truth, and what they resample."""

import math

import numpy as np
import pytest

from veche.experts.bootstrap import mean_interval
from veche.roles.evaluation.intervals import gain_interval, grouped_interval, same_group_pairs
from veche.roles.evaluation.metrics import auroc

SIMULATIONS = 200


def mean_of(values):
    return lambda rows: float(values[rows].mean())


def auroc_of(score, label):
    return lambda rows: auroc(score[rows], label[rows])


def of_questions(rng, num_groups=30, rows=4):
    """Rows of a question share most of what makes them hard; the mean of all is 0."""
    values = rng.normal(size=(num_groups, 1)) + 0.3 * rng.normal(size=(num_groups, rows))
    groups = np.repeat([f"q{n}" for n in range(num_groups)], rows)
    return values.ravel(), list(groups)


def test_intervals_over_groups_cover_the_truth_where_those_over_rows_do_not():
    rng = np.random.default_rng(0)
    grouped = alone = 0
    for _ in range(SIMULATIONS):
        values, groups = of_questions(rng)
        found = grouped_interval(mean_of(values), groups, resamples=200)
        naive = mean_interval(values, resamples=200)
        grouped += found.low <= 0 <= found.high
        alone += naive.low <= 0 <= naive.high
    assert 0.88 <= grouped / SIMULATIONS <= 0.98
    assert alone / SIMULATIONS < 0.8


def test_the_interval_of_an_auroc_covers_its_true_value():
    """Two normal scores one deviation apart: P(X⁺ > X⁻) = Φ(1/√2) = 0.7602."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(SIMULATIONS):
        label = rng.uniform(size=80) < 0.5
        score = rng.normal(size=80) + label
        found = grouped_interval(auroc_of(score, label), [str(n) for n in range(80)], resamples=200)
        covered += found.low <= 0.7602 <= found.high
    assert 0.89 <= covered / SIMULATIONS <= 0.99


def test_of_rows_that_are_their_own_groups_it_is_the_bootstrap_of_a_mean():
    values = np.random.default_rng(2).normal(size=50)
    groups = [f"{n:02}" for n in range(50)]
    found = grouped_interval(mean_of(values), groups, resamples=4000)
    peer = mean_interval(values, resamples=4000)
    assert found.mean == pytest.approx(peer.mean)
    assert found.as_list() == pytest.approx(peer.as_list(), abs=0.03)


def test_groups_are_drawn_whole():
    groups = ["b", "a", "b", "c", "a", "b"]
    seen = []

    def watch(rows):
        seen.append(np.bincount(rows, minlength=6))
        return 0.0

    grouped_interval(watch, groups, resamples=50)
    assert len({tuple(counts) for counts in seen}) > 5
    for counts in seen:
        assert counts[0] == counts[2] == counts[5]
        assert counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3


def test_a_gain_cancels_what_both_have_in_common():
    rng = np.random.default_rng(3)
    first = 5 * rng.normal(size=100)
    second = first + 0.1 + 0.1 * rng.normal(size=100)
    groups = [str(n // 2) for n in range(100)]

    gain = gain_interval(mean_of(first), mean_of(second), groups)
    alone = grouped_interval(mean_of(second), groups)
    assert gain.is_above_zero
    assert gain.high - gain.low < 0.1 < alone.high - alone.low
    assert gain_interval(mean_of(first), mean_of(first), groups).as_list() == [0, 0]


def test_samples_that_do_not_define_the_statistic_are_left_out():
    score, label = np.arange(6) / 6, np.array([False] * 5 + [True])
    groups = [str(n) for n in range(6)]
    found = grouped_interval(auroc_of(score, label), groups)
    assert (found.mean, found.low, found.high) == (1, 1, 1)
    rare = grouped_interval(lambda rows: 1.0 if len(set(rows)) == 6 else math.nan, groups)
    assert rare.mean == 1
    assert all(map(math.isnan, rare.as_list()))


def test_one_group_or_an_undefined_figure_has_no_ends():
    alone = grouped_interval(lambda rows: 1.0, ["a", "a"])
    assert alone.mean == 1
    assert all(map(math.isnan, alone.as_list()))
    undefined = grouped_interval(lambda rows: math.nan, ["a", "b"])
    assert all(map(math.isnan, (undefined.mean, *undefined.as_list())))


def test_pairs_of_one_question_are_counted_one_by_one():
    rng = np.random.default_rng(4)
    score, label = rng.integers(0, 4, size=60) / 4, rng.uniform(size=60) < 0.5
    groups = [str(n) for n in rng.integers(0, 12, size=60)]
    won = [
        1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
        for i in range(60)
        for j in range(60)
        if groups[i] == groups[j] and label[i] and not label[j]
    ]
    found = same_group_pairs(score, label, groups)
    assert found.mean == pytest.approx(np.mean(won))
    assert found.low < found.mean < found.high


def test_a_score_that_knows_only_the_question_is_at_chance_within_it():
    rng = np.random.default_rng(5)
    easy = np.repeat(rng.uniform(size=200), 6)
    label = rng.uniform(size=1200) < easy
    groups = [str(n // 6) for n in range(1200)]
    assert auroc(easy, label) > 0.75
    assert same_group_pairs(easy, label, groups).mean == 0.5
    assert math.isnan(same_group_pairs([0.1, 0.2], [True, False], ["a", "b"]).mean)


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_no_rows_or_a_level_outside_of_0_and_1_is_a_mistake(level):
    with pytest.raises(ValueError, match="no interval"):
        grouped_interval(lambda rows: 0.0, ["a", "b"], level=level)
    with pytest.raises(ValueError, match="no interval"):
        grouped_interval(lambda rows: 0.0, [])
