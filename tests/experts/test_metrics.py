"""Every metric against a slow and obvious count, and at its limits."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.experts import metrics


@st.composite
def routings(draw, num_voices=1):
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    top_k = draw(st.integers(1, experts))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    voices = []
    for _ in range(num_voices):
        tokens = draw(st.integers(1, 7))
        order = rng.random((tokens, layers, experts)).argsort(-1)[..., :top_k]
        voices.append(order.astype(np.uint16))
    return (*voices, experts)


def slow_counts(ids, experts):
    counts = [[0] * experts for _ in range(ids.shape[1])]
    for token in ids:
        for layer, chosen in enumerate(token):
            for expert in chosen:
                counts[layer][int(expert)] += 1
    return counts


def slow_entropy(probs):
    return -sum(p * math.log(p) for p in probs if p > 0)


@given(routings())
def test_counts_load_and_dead_experts_equal_a_slow_count(routing):
    ids, experts = routing
    counts = metrics.expert_counts(ids, experts)
    slow = slow_counts(ids, experts)
    assert counts.tolist() == slow
    assert counts.sum() == ids.size
    assert metrics.dead_experts(counts).tolist() == [row.count(0) for row in slow]
    load = metrics.load(counts)
    assert load == pytest.approx(np.array([[n / sum(row) for n in row] for row in slow]))
    assert load.sum(-1) == pytest.approx(1)


@given(routings())
def test_balance_equals_its_textbook_definition(routing):
    ids, experts = routing
    load = metrics.load(metrics.expert_counts(ids, experts))
    for layer, row in enumerate(load.tolist()):
        mean = sum(row) / experts
        spread = math.sqrt(sum((value - mean) ** 2 for value in row) / experts)
        assert metrics.load_cv(load)[layer] == pytest.approx(spread / mean)
        assert metrics.max_violation(load)[layer] == pytest.approx(max(row) / mean - 1)
        entropy = slow_entropy(row) / math.log(experts)
        assert metrics.load_entropy(load)[layer] == pytest.approx(entropy)


def test_balance_at_its_limits():
    uniform, single = np.full((1, 8), 1 / 8), np.eye(8)[:1]
    assert metrics.load_entropy(uniform) == pytest.approx(1)
    assert metrics.load_cv(uniform) == pytest.approx(0)
    assert metrics.max_violation(uniform) == pytest.approx(0)
    assert metrics.load_entropy(single) == pytest.approx(0)
    assert metrics.max_violation(single) == pytest.approx(7)
    silent = metrics.load(np.zeros((1, 8), int))
    assert metrics.max_violation(silent) == metrics.load_cv(silent) == 0


@given(routings(num_voices=2))
def test_overlap_equals_the_mean_over_all_pairs_of_tokens(routing):
    first, second, experts = routing
    top_k = first.shape[2]
    shares = [
        len(set(a[layer].tolist()) & set(b[layer].tolist())) / top_k
        for a, b in product(first, second)
        for layer in range(first.shape[1])
    ]
    assert metrics.overlap(first, second, experts) == pytest.approx(np.mean(shares))
    assert metrics.overlap(first, second, experts) == metrics.overlap(second, first, experts)


@given(routings())
def test_self_overlap_compares_different_tokens_only(routing):
    ids, experts = routing
    shares = [
        len(set(a[layer].tolist()) & set(b[layer].tolist())) / ids.shape[2]
        for (i, a), (j, b) in product(enumerate(ids), enumerate(ids))
        for layer in range(ids.shape[1])
        if i != j
    ]
    measured = metrics.self_overlap(ids, experts)
    assert measured == pytest.approx(np.mean(shares)) if shares else math.isnan(measured)


def test_random_routing_meets_the_nulls():
    rng = np.random.default_rng(0)
    first, second = (
        rng.random((400, 2, 16)).argsort(-1)[..., :4].astype(np.uint16) for _ in range(2)
    )
    assert metrics.overlap(first, second, 16) == pytest.approx(4 / 16, abs=0.005)
    assert metrics.self_overlap(first, 16) == pytest.approx(4 / 16, abs=0.005)
    dead = [
        metrics.dead_experts(metrics.expert_counts(first[at : at + 5], 16)).mean()
        for at in range(0, 400, 5)
    ]
    assert np.mean(dead) == pytest.approx(metrics.expected_dead_experts(5, 4, 16), rel=0.1)


@given(routings(num_voices=2))
def test_js_divergence_is_a_symmetric_number_from_0_to_1(routing):
    first, second, experts = routing
    p, q = (metrics.load(metrics.expert_counts(ids, experts)) for ids in (first, second))
    measured = metrics.js_divergence(p, q)
    for layer in range(len(p)):
        mixed = [(a + b) / 2 for a, b in zip(p[layer], q[layer], strict=True)]
        slow = slow_entropy(mixed) - (slow_entropy(p[layer]) + slow_entropy(q[layer])) / 2
        assert measured[layer] == pytest.approx(slow / math.log(2), abs=1e-12)
    assert measured == pytest.approx(metrics.js_divergence(q, p))
    assert metrics.js_divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert metrics.js_divergence(np.eye(4)[:1], np.eye(4)[1:2]) == pytest.approx(1)


def test_token_entropy_is_0_when_one_expert_decides_and_1_when_all_weigh_the_same():
    weights = np.array([[[1, 0, 0]], [[0.2, 0.2, 0.2]], [[0.5, 0.25, 0.25]]], np.float16)
    slow = slow_entropy([0.5, 0.25, 0.25]) / math.log(3)
    assert metrics.token_entropy(weights)[:, 0] == pytest.approx([0, 1, slow], abs=1e-6)
    assert metrics.token_entropy(np.ones((2, 1, 1), np.float16)).tolist() == [[0], [0]]


@given(routings())
def test_activation_rates_add_up_to_k(routing):
    ids, experts = routing
    counts = metrics.expert_counts(ids, experts)
    rates = metrics.activation_rate(counts, len(ids))
    assert rates.sum(-1) == pytest.approx(ids.shape[2])
    slow = [[row.count(e) for e in range(experts)] for row in ids[:, 0].tolist()]
    assert rates[0] == pytest.approx(np.mean(slow, 0))


def test_places_that_were_not_used_count_for_no_expert():
    ids = np.array([[[1, 4, 4]], [[0, 1, 4]]], np.uint8)
    assert metrics.expert_counts(ids, 4).tolist() == [[1, 2, 0, 0]]
    assert metrics.coactivation(ids, 4)[0, 1].tolist() == [0.5, 1, 0, 0]


@given(routings())
def test_coactivation_equals_a_count_of_token_pairs(routing):
    ids, experts = routing
    measured = metrics.coactivation(ids, experts)
    for layer, first, second in product(range(ids.shape[1]), range(experts), range(experts)):
        has = [set(token) for token in ids[:, layer].tolist()]
        own = sum(first in chosen for chosen in has)
        both = sum(first in chosen and second in chosen for chosen in has)
        assert measured[layer, first, second] == pytest.approx(both / own if own else 0)


def test_coactivation_of_random_routing_meets_its_null():
    rng = np.random.default_rng(0)
    ids = rng.random((4000, 1, 16)).argsort(-1)[..., :4].astype(np.uint8)
    shares = metrics.coactivation(ids, 16)[0]
    off = shares[~np.eye(16, dtype=bool)]
    assert off.mean() == pytest.approx(3 / 15, abs=0.002)
    assert shares.diagonal() == pytest.approx(1)


@given(routings(num_voices=1), st.integers(0, 10**6))
def test_saturation_is_the_share_of_final_experts_that_were_there_already(routing, seed):
    final, experts = routing
    rng = np.random.default_rng(seed)
    early = rng.random((*final.shape[:2], experts)).argsort(-1)[..., : final.shape[2]]
    for layer, measured in enumerate(metrics.saturation(early, final)):
        shares = [
            len(set(before) & set(after)) / len(after)
            for before, after in zip(
                early[:, layer].tolist(), final[:, layer].tolist(), strict=True
            )
        ]
        assert measured == pytest.approx(np.mean(shares))
    assert metrics.saturation(final, final) == pytest.approx(1)
    assert metrics.saturation(final[..., ::-1], final) == pytest.approx(1)


def test_saturation_of_unrelated_checkpoints_is_k_of_e():
    rng = np.random.default_rng(0)
    early, final = (rng.random((4000, 2, 16)).argsort(-1)[..., :4] for _ in range(2))
    assert metrics.saturation(early, final) == pytest.approx(4 / 16, abs=0.01)
    with pytest.raises(ValueError, match="same tokens"):
        metrics.saturation(early[:-1], final)


def test_mass_margin_and_router_entropy_equal_a_slow_softmax():
    logits = np.random.default_rng(0).normal(size=(5, 2, 6)).astype(np.float16)
    for token, layer in product(range(5), range(2)):
        row = [math.exp(float(x)) for x in logits[token, layer]]
        probs = sorted((x / sum(row) for x in row), reverse=True)
        assert metrics.top_k_mass(logits, 2)[token, layer] == pytest.approx(probs[0] + probs[1])
        assert metrics.top_1_margin(logits)[token, layer] == pytest.approx(probs[0] - probs[1])
        slow = slow_entropy(probs) / math.log(6)
        assert metrics.router_entropy(logits)[token, layer] == pytest.approx(slow)


def test_a_router_that_knows_nothing_meets_the_nulls():
    logits = np.zeros((1, 1, 8))
    assert metrics.top_k_mass(logits, 3).item() == pytest.approx(3 / 8)
    assert metrics.top_1_margin(logits).item() == 0
    assert metrics.router_entropy(logits).item() == pytest.approx(1)
    sure = np.array([[[1e4, 0, 0]]])
    assert metrics.top_1_margin(sure).item() == metrics.top_k_mass(sure, 1).item() == 1


def test_the_null_of_cv_is_what_random_routing_gives():
    rng = np.random.default_rng(0)
    ids = rng.random((200, 100, 16)).argsort(-1)[..., :4]
    measured = metrics.load_cv(metrics.load(metrics.expert_counts(ids, 16)))
    # √ of a mean square is a little above the mean.
    assert np.sqrt((measured**2).mean()) == pytest.approx(metrics.expected_cv(200, 4, 16), rel=0.05)


class TestTwoWrongWaysToCountTopK:
    """The worked example of docs/explanation/experts.md: 4 tokens, 4 experts, 2 of them active."""

    IDS = np.array([[[0, 1]], [[0, 1]], [[2, 1]], [[3, 1]]], np.uint8)

    def test_the_load_counts_every_place(self):
        counts = metrics.expert_counts(self.IDS, 4)
        assert counts.tolist() == [[2, 4, 1, 1]]
        assert metrics.load(counts).tolist() == [[0.25, 0.5, 0.125, 0.125]]
        assert metrics.dead_experts(counts).tolist() == [0]
        assert metrics.max_violation(metrics.load(counts)) == pytest.approx(1)

    def test_the_argmax_alone_calls_the_busiest_expert_dead(self):
        first_only = metrics.expert_counts(self.IDS[..., :1], 4)
        assert first_only.tolist() == [[2, 0, 1, 1]]
        assert metrics.dead_experts(first_only).tolist() == [1]

    def test_division_by_t_gives_loads_that_add_up_to_k(self):
        by_tokens = metrics.expert_counts(self.IDS, 4) / len(self.IDS)
        assert by_tokens.tolist() == [[0.5, 1, 0.25, 0.25]]
        assert by_tokens.sum() == 2
        # Beside the null of a load, 1/E, the least used experts would look just as they should.
        assert by_tokens[0, 2] == 1 / 4
        # As an activation rate it is right, and its null is k/E.
        assert metrics.activation_rate(metrics.expert_counts(self.IDS, 4), 4).mean() == 2 / 4
