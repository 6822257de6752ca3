"""Figures of steps against slow, obvious ones."""

import math

import numpy as np
import pytest

from veche.roles.probe.scalars import (
    LOGPROB_SCALARS,
    ROUTER_SCALARS,
    logprob_scalars,
    router_scalars,
)


def named(values, names):
    return dict(zip(names, values, strict=True))


def test_log_probability_figures_are_those_of_the_tokens():
    chosen, entropy = [-0.1, -2.0, -0.5], [0.3, 1.5, 0.7]
    first, second = [-0.1, -0.4, -0.5], [-3.0, -1.2, -1.0]
    has_digit = [0, 1, 1]
    found = named(
        logprob_scalars(np.array([chosen, entropy, first, second, has_digit], np.float32).T),
        LOGPROB_SCALARS,
    )
    assert found["logprob_sum"] == pytest.approx(-2.6, abs=1e-6)
    assert found["logprob_min"] == pytest.approx(-2.0)
    assert found["number_logprob_mean"] == pytest.approx(-1.25)
    assert found["number_logprob_last"] == pytest.approx(-0.5)
    assert found["margin_min"] == pytest.approx(math.exp(-0.5) - math.exp(-1.0), abs=1e-6)
    assert found["max_prob_min"] == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert found["surprise_max"] == pytest.approx(0.5)
    assert found["greedy_share"] == pytest.approx(2 / 3)


def test_a_step_without_tokens_has_figures_that_are_finite():
    assert logprob_scalars(np.zeros((0, 5), np.float32)) == [0.0] * len(LOGPROB_SCALARS)


def slow_js(p, q):
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]

    def kl(a, b):
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x)

    return (kl(p, m) + kl(q, m)) / 2 / math.log(2)


def test_drift_is_the_divergence_from_the_step_before_and_new_experts_are_those_unseen():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, size=(3, 2, 5)).astype(np.uint16)
    counts[:, :, 0] = 1
    router = rng.random((3, 2, 2)).astype(np.float32)
    found = router_scalars(counts, router)
    load = counts / counts.sum(-1, keepdims=True)
    for step in range(3):
        row = named(found[step], ROUTER_SCALARS)
        drift = (
            np.mean([slow_js(load[step - 1, n], load[step, n]) for n in range(2)]) if step else 0
        )
        assert row["drift"] == pytest.approx(drift, abs=1e-6)
        used = {(n, e) for n in range(2) for e in range(5) if counts[step, n, e]}
        before = {(n, e) for n in range(2) for e in range(5) if counts[:step, n, e].sum()}
        assert row["new_expert_share"] == pytest.approx(len(used - before) / len(used))
        assert row["router_entropy"] == pytest.approx(router[step, :, 0].mean())
        most = np.mean([load[step, n].max() * 5 - 1 for n in range(2)])
        assert row["max_violation"] == pytest.approx(most, abs=1e-5)


def test_a_step_whose_routing_is_that_of_the_one_before_does_not_drift():
    counts = np.tile(np.array([[[3, 1, 0]]], np.uint16), (2, 1, 1))
    found = router_scalars(counts, np.zeros((2, 1, 2), np.float32))
    assert found[1, ROUTER_SCALARS.index("drift")] == 0
    assert found[1, ROUTER_SCALARS.index("new_expert_share")] == 0
