"""Distances between readings: by their definitions, at their limits, under their symmetries."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.experts.disagreement import (
    cosine_distance,
    linear_cka,
    next_token_js,
    overlap_by_chance,
    routing_overlap,
)

seeds = st.integers(0, 10**6)


def rotation(size, rng):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


@given(seeds)
def test_js_is_the_mean_surprise_at_the_mixture(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(scale=3, size=(2, 40, 5))
    measured = next_token_js(first, second)
    for token in range(40):
        p, q = (
            [math.exp(z) / sum(map(math.exp, row)) for z in row]
            for row in (first[token], second[token])
        )
        kl = [
            sum(a * math.log2(a / ((a + b) / 2)) for a, b in zip(*pair, strict=True))
            for pair in ((p, q), (q, p))
        ]
        assert measured[token] == pytest.approx(sum(kl) / 2, abs=1e-9)
    assert measured == pytest.approx(next_token_js(second, first), abs=1e-12)
    assert next_token_js(first, first + 7) == pytest.approx(np.zeros(40), abs=1e-12)


def test_js_of_two_certainties_is_one_bit():
    certain = np.array([[1e4, 0, 0]])
    assert next_token_js(certain, certain[:, ::-1]) == pytest.approx([1])


@given(seeds)
def test_cosine_distance_is_that_of_each_pair_of_states(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 4, 3, 6))
    measured = cosine_distance(first, second)
    for token in range(4):
        for layer in range(3):
            a, b = first[token, layer], second[token, layer]
            slow = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert measured[token, layer] == pytest.approx(slow)
    assert cosine_distance(first, 5 * first) == pytest.approx(np.zeros((4, 3)), abs=1e-12)
    assert cosine_distance(first, -first) == pytest.approx(np.full((4, 3), 2))
    assert cosine_distance(first, 0 * first).tolist() == np.ones((4, 3)).tolist()


def slow_hsic(first, second):
    """The unbiased estimate by its definition: a mean over all quadruples of different tokens."""
    one, two = first @ first.T, second @ second.T
    terms = [
        one[i, j] * (two[i, j] + two[q, r] - 2 * two[i, q])
        for i, j, q, r in permutations(range(len(first)), 4)
    ]
    return np.mean(terms)


@given(seeds)
def test_cka_is_that_of_the_mean_over_all_quadruples_of_tokens(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(6, 9)), rng.normal(size=(6, 4)) + 2
    own = slow_hsic(first, first) * slow_hsic(second, second)
    if own > 1e-3:
        assert linear_cka(first, second) == pytest.approx(
            slow_hsic(first, second) / math.sqrt(own), abs=1e-9
        )


@given(seeds, st.floats(0.01, 100))
def test_cka_does_not_see_rotation_scale_or_shift_but_sees_another_map(seed, scale):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(20, 8)), rng.normal(size=(20, 8))
    plain = linear_cka(first, second)
    turned = scale * first @ rotation(8, rng) + rng.normal(size=8)
    assert linear_cka(turned, second) == pytest.approx(plain, abs=1e-9)
    assert linear_cka(turned, first) == pytest.approx(1)
    assert linear_cka(first, second) == pytest.approx(linear_cka(second, first))
    stretched = first @ np.diag([100.0, *np.ones(7)])
    assert linear_cka(stretched, first) < 0.95


def test_cka_of_strangers_is_about_0_with_fewer_tokens_than_dimensions():
    rng = np.random.default_rng(0)
    measured = [linear_cka(*rng.normal(size=(2, 12, 300))) for _ in range(200)]
    assert np.mean(measured) == pytest.approx(0, abs=0.03)


def test_cka_of_too_little_is_not_a_number():
    states = np.random.default_rng(0).normal(size=(3, 8))
    assert math.isnan(linear_cka(states, states))
    assert math.isnan(linear_cka(np.ones((9, 8)), np.ones((9, 8))))


def routings(rng, tokens, layers, experts, top_k):
    ids = rng.random((tokens, layers, experts)).argsort(-1)[..., :top_k]
    return ids, np.full(ids.shape, 0.5)


@given(seeds)
def test_routing_overlap_is_the_share_of_common_experts(seed):
    rng = np.random.default_rng(seed)
    first, weights = routings(rng, 4, 2, 7, 3)
    second, others = routings(rng, 4, 2, 7, 4)
    weights[rng.random(weights.shape) < 0.3] = 0
    measured = routing_overlap(first, weights, second, others, 7)
    for token in range(4):
        for layer in range(2):
            mine = {
                expert
                for expert, weight in zip(first[token, layer], weights[token, layer], strict=True)
                if weight > 0
            }
            theirs = set(second[token, layer].tolist())
            assert measured[token, layer] == pytest.approx(len(mine & theirs) / 4)
    assert routing_overlap(second, others, second, others, 7).tolist() == np.ones((4, 2)).tolist()


def test_routing_by_chance_meets_the_null():
    rng = np.random.default_rng(0)
    first, weights = routings(rng, 3000, 2, 16, 12)
    second, others = routings(rng, 3000, 2, 16, 8)
    null = overlap_by_chance(weights, others, 16)
    assert null == 8 / 16
    overlap = routing_overlap(first, weights, second, others, 16)
    assert overlap.mean() == pytest.approx(null, abs=0.005)
    assert overlap_by_chance(weights, weights, 16) == 12 / 16
