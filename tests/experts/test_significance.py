"""Tests against full enumeration, the null's own uniformity, and published adjustments."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.experts.significance import benjamini_hochberg, difference, needed_together


def apart(counts, tokens, num_inside):
    """Compare the first documents with the others, none of which is of both."""
    is_inside = np.arange(len(counts)) < num_inside
    return difference(
        counts * is_inside[:, None], tokens * is_inside,
        counts * ~is_inside[:, None], tokens * ~is_inside,
    )  # fmt: skip


def test_between_documents_it_is_the_share_of_all_deals_that_are_as_far_apart():
    rng = np.random.default_rng(1)
    tokens = rng.integers(20, 60, 7)
    counts = rng.binomial(tokens, [0.6] * 3 + [0.4] * 4)[:, None]
    found = apart(counts, tokens, 3)

    def gap(inside):
        rest = [d for d in range(7) if d not in inside]
        return sum(counts[d, 0] for d in inside) / sum(tokens[d] for d in inside) - sum(
            counts[d, 0] for d in rest
        ) / sum(tokens[d] for d in rest)

    deals = [abs(gap(inside)) for inside in combinations(range(7), 3)]
    exact = np.mean([deal >= abs(gap((0, 1, 2))) - 1e-12 for deal in deals])
    assert found.design == "between documents"
    assert (found.num_documents, found.num_others) == (3, 4)
    assert found.rate - found.rest == pytest.approx(gap((0, 1, 2)))
    assert found.p_values == pytest.approx(exact, abs=0.02)
    assert found.smallest_p == pytest.approx(1 / 35)


def test_within_documents_it_is_the_share_of_all_swaps_that_are_as_far_apart():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(3, 9, (6, 1)), rng.integers(0, 6, (6, 1))
    ten = np.full(6, 10)
    found = difference(inside, ten, outside, ten)
    gaps = (inside - outside)[:, 0] / 10
    swaps = [abs(np.dot(signs, gaps)) for signs in product([-1, 1], repeat=6)]
    exact = np.mean([swap >= abs(gaps.sum()) - 1e-12 for swap in swaps])
    assert found.design == "within documents"
    assert found.p_values == pytest.approx(exact, abs=0.02)
    assert found.smallest_p == 2 / 2**6


def test_documents_of_one_kind_only_take_no_part_within_documents():
    inside, outside = np.array([[5], [9], [0]]), np.array([[2], [0], [7]])
    found = difference(inside, np.array([10, 10, 0]), outside, np.array([10, 0, 10]))
    assert (found.design, found.num_documents) == ("within documents", 1)
    assert (found.rate, found.rest) == (0.5, 0.2)
    assert found.smallest_p == 1


def test_where_nothing_can_be_compared_there_is_no_result():
    nothing, ten = np.zeros((2, 1), int), np.array([10, 10])
    assert difference(nothing + 3, ten, nothing, ten * 0) is None
    assert difference(nothing, ten * 0, nothing + 3, ten) is None


def test_under_the_null_p_values_are_uniform_though_tokens_of_a_document_depend_on_each_other():
    """Each document has a rate of its own: token by token nearly all would be significant."""
    rng = np.random.default_rng(0)
    rates = rng.beta(2, 2, (12, 600))
    tokens = np.full(12, 400)
    counts = rng.binomial(400, rates)
    p_values = apart(counts, tokens, 6).p_values
    for level in (0.05, 0.2, 0.5):
        # Four standard errors of a share of 600.
        error = 4 * np.sqrt(level * (1 - level) / 600)
        assert np.mean(p_values <= level) == pytest.approx(level, abs=error + 0.01)
    inside, outside = counts[:6].sum(0), counts[6:].sum(0)
    pooled = (inside + outside) / 4800
    naive = np.abs(inside - outside) / 2400 / np.sqrt(pooled * (1 - pooled) * 2 / 2400)
    assert np.mean(naive > 1.96) > 0.7


def test_a_planted_difference_is_found_with_many_documents_and_cannot_be_with_few():
    rng = np.random.default_rng(0)
    tokens = np.full(40, 200)
    rates = np.full((40, 100), 0.25)
    rates[:20, 7] = 0.4
    counts = rng.binomial(200, rates)
    adjusted = benjamini_hochberg(apart(counts, tokens, 20).p_values)
    assert np.flatnonzero(adjusted <= 0.05).tolist() == [7]
    few = np.r_[0:3, 20:23]
    assert (benjamini_hochberg(apart(counts[few], tokens[few], 3).p_values) > 0.05).all()
    assert needed_together(apart(counts[few], tokens[few], 3).smallest_p, 100) > 100


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_adjusted_p_values_equal_the_step_up_rule_at_every_rate(p_values):
    """Reject the k smallest, k the largest rank with p_(k) ≤ k·q/m (Benjamini, Hochberg 1995)."""
    adjusted = benjamini_hochberg(np.array(p_values))
    ordered = sorted(p_values)
    for rate in (0.01, 0.05, 0.3, 0.9):
        passing = [k for k, p in enumerate(ordered, 1) if p * len(ordered) / k <= rate]
        rejected = sorted(p for p, q in zip(p_values, adjusted, strict=True) if q <= rate)
        assert rejected == ordered[: max(passing, default=0)]


def test_the_published_example_of_the_adjustment():
    """Table of section 4 of Benjamini and Hochberg (1995): four of fifteen at 5 %."""
    p_values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
        0.5719, 0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    assert (benjamini_hochberg(np.array(p_values)) <= 0.05).sum() == 4


@pytest.mark.parametrize(("smallest", "tests", "needed"), [(0.05, 100, 100), (0.0001, 480, 1)])
def test_how_many_must_stand_out_together(smallest, tests, needed):
    assert needed_together(smallest, tests) == needed

    def best(num):
        return benjamini_hochberg(np.array([smallest] * num + [1.0] * (tests - num)))[0]

    assert best(needed) <= 0.05 + 1e-12
    assert needed == 1 or best(needed - 1) > 0.05
