"""Routers with equal weights: the model's own answers forwards, a soft choice backwards."""

import pytest
import torch
from tests.roles.healing import lessons

from veche.roles.healing.straight_through import (
    SCALE,
    TEMPERATURE,
    close_routers,
    open_routers,
    soft_choice,
)
from veche.surgery.loading import load_model


@pytest.fixture
def model(shelf):
    return load_model(shelf / "carved", changes={"num_experts_per_tok": 2})


def test_opening_routers_changes_no_answer_and_closing_them_no_bit(model):
    tokens = torch.arange(3, 67)[None]
    before = lessons.parameters(model)
    own = model.config._experts_implementation
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
        gates = open_routers(model)
        opened = model(input_ids=tokens).logits
        close_routers(model, gates, own)
        closed = model(input_ids=tokens).logits
    # The weights are 1/k up to the routers' spread of 1e-6, and sums are in another order.
    assert torch.allclose(opened, expected, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(closed, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_the_choice_is_hard_and_its_gradient_that_of_the_sigmoid():
    torch.manual_seed(0)
    logits_NE = torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    chosen_NE = soft_choice(logits_NE, 2)
    best_NE = torch.zeros(50, 6, dtype=torch.float64)
    for row, place in zip(best_NE, logits_NE.detach().argsort(descending=True)[:, :2], strict=True):
        row[place] = 1
    assert torch.allclose(chosen_NE, best_NE, atol=1e-15)
    pull_NE = torch.randn(50, 6, dtype=torch.float64)
    (chosen_NE * pull_NE).sum().backward()
    for given_E, pull_E, gradient_E in zip(
        logits_NE.detach(), pull_NE, logits_NE.grad, strict=True
    ):
        expected_E = torch.zeros(6, dtype=torch.float64)
        ranked = given_E.sort(descending=True)
        threshold = (ranked.values[1] + ranked.values[2]) / 2
        for expert in range(6):
            share = 1 / (1 + torch.exp(-(given_E[expert] - threshold) / TEMPERATURE))
            slope = share * (1 - share) / TEMPERATURE * pull_E[expert]
            expected_E[expert] += slope
            expected_E[ranked.indices[1]] -= slope / 2
            expected_E[ranked.indices[2]] -= slope / 2
        assert torch.allclose(gradient_E, expected_E, rtol=1e-9, atol=1e-12)


def test_the_scale_is_a_power_of_two_so_that_no_bit_is_lost():
    assert torch.frexp(torch.tensor(SCALE)).mantissa == 0.5


def test_with_every_expert_chosen_there_is_nothing_to_learn():
    logits_NE = torch.randn(5, 4, requires_grad=True)
    chosen_NE = soft_choice(logits_NE, 4)
    assert torch.equal(chosen_NE, torch.ones(5, 4))
    assert not chosen_NE.requires_grad
