"""The numpy sampler against transformers' own logits processors, and against its equations."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from veche.engines.llama_cpp.sampling import (
    Sampler,
    entropy_nats,
    log_softmax,
    penalised,
    warped,
)
from veche.engines.protocol import Sampling


def logits(seed=0, size=400, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 20, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.01])
@pytest.mark.parametrize("min_p", [0.0, 0.1])
def test_what_is_drawn_from_is_what_generate_draws_from(temperature, top_k, top_p, min_p):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    found = warped(logits(), sampling)
    scores = torch.tensor(logits())[None]
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        scores = MinPLogitsWarper(min_p)(None, scores)
    wanted = torch.softmax(scores[0], -1).numpy()
    assert ((found > 0) == (wanted > 0)).all()
    assert found / found.sum() == pytest.approx(wanted, abs=1e-6)


def test_the_repetition_penalty_is_that_of_generate():
    decoded = [3, 5, 5, 380]
    wanted = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([decoded]), torch.tensor(logits())[None].clone()
    )
    before = logits()
    assert penalised(before, decoded, 1.7) == pytest.approx(wanted[0].numpy())
    assert (before == logits()).all()


def test_greedy_takes_the_likeliest():
    assert Sampler(Sampling()).pick(logits(), []) == int(logits().argmax())


def test_draws_follow_the_distribution_and_a_seed_repeats_them():
    values = np.array([2.0, 1.0, 0.0, -1.0, -np.inf, 0.5], np.float32)
    sampling = Sampling(temperature=1.3, seed=2**63 - 1)
    one, other = Sampler(sampling), Sampler(sampling)
    draws = [one.pick(values, []) for _ in range(20_000)]
    assert draws[:100] == [other.pick(values, []) for _ in range(100)]
    counts = np.bincount(draws, minlength=len(values))
    expected = np.exp(values / 1.3) / np.exp(values / 1.3).sum() * len(draws)
    assert counts[4] == 0
    assert (np.abs(counts - expected) <= 4.5 * np.sqrt(expected + 1)).all()


def test_entropy_and_log_probabilities_are_those_of_double_precision():
    for scale in (0.1, 3.0, 200.0):
        log_p = torch.log_softmax(torch.tensor(logits(scale=scale)).double(), -1)
        entropy = float(-(log_p.exp() * log_p).sum())
        assert entropy_nats(logits(scale=scale)) == pytest.approx(entropy, abs=1e-5)
        assert log_softmax(logits(scale=scale)) == pytest.approx(log_p.numpy(), abs=1e-3 * scale)


def test_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    values = np.full(8, 7.0, np.float32)
    assert entropy_nats(values) == pytest.approx(math.log(8))
    values[4:] = -np.inf
    assert entropy_nats(values) == pytest.approx(math.log(4))
    values[0] = np.nan
    assert math.isnan(entropy_nats(values))
