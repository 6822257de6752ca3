import pytest
import torch

from veche.surgery.carving.partition import dropped_energy
from veche.surgery.carving.router_fit import (
    RidgeRouter,
    _slope,
    hit_rate,
    refine_router,
    scale_router,
)

NUM_TOKENS, WIDTH, NUM_EXPERTS, TOP_K = 1200, 16, 8, 5


@pytest.fixture
def problem():
    """Inputs, and energies that depend on them through a noisy log-linear law."""
    random = torch.Generator().manual_seed(0)
    inputs_NH = torch.randn(NUM_TOKENS, WIDTH, generator=random)
    truth_EH = torch.randn(NUM_EXPERTS, WIDTH, generator=random) / WIDTH**0.5
    noise_NE = torch.randn(NUM_TOKENS, NUM_EXPERTS, generator=random)
    return inputs_NH, torch.exp(2 * (inputs_NH @ truth_EH.T) + 0.5 * noise_NE)


def _soft_dropped(weight_EH, inputs_NH, energies_NE, temperature):
    """The refinement's objective, with the threshold found by bisection: slow and obvious."""
    scores_NE = inputs_NH @ weight_EH.T
    low, high = scores_NE.min(dim=1).values - 9, scores_NE.max(dim=1).values + 9
    for _ in range(80):
        middle = (low + high) / 2
        dropped = torch.sigmoid((middle[:, None] - scores_NE) / temperature).sum(dim=1)
        too_many = dropped > NUM_EXPERTS - TOP_K
        low, high = torch.where(too_many, low, middle), torch.where(too_many, middle, high)
    mask_NE = torch.sigmoid(((low + high) / 2)[:, None].sub(scores_NE) / temperature)
    return (mask_NE * energies_NE).sum()


def test_ridge_solves_the_normal_equations(problem):
    inputs_NH, energies_NE = problem
    weight_EH = RidgeRouter(inputs_NH, ridge=0.1).weight(energies_NE)
    target_NE = 0.5 * energies_NE.log()
    target_NE -= target_NE.mean(dim=1, keepdim=True)
    gram_HH = inputs_NH.T @ inputs_NH
    penalty = 0.1 * gram_HH.diagonal().mean() * torch.eye(WIDTH)
    expected_EH = torch.linalg.solve(gram_HH + penalty, inputs_NH.T @ target_NE).T
    torch.testing.assert_close(weight_EH, expected_EH, rtol=1e-3, atol=1e-5)


def test_ridge_beats_a_random_router_and_refinement_beats_ridge(problem):
    inputs_NH, energies_NE = problem
    random_EH = torch.randn(NUM_EXPERTS, WIDTH, generator=torch.Generator().manual_seed(9))
    ridge_EH = RidgeRouter(inputs_NH).weight(energies_NE)
    refined_EH = refine_router(ridge_EH, inputs_NH, energies_NE, TOP_K, seed=0)
    dropped = [
        float(dropped_energy(energies_NE, inputs_NH @ weight_EH.T, TOP_K))
        for weight_EH in (random_EH, ridge_EH, refined_EH)
    ]
    assert dropped[1] < 0.6 * dropped[0]
    assert dropped[2] < dropped[1]
    assert dropped[2] > float(dropped_energy(energies_NE, energies_NE, TOP_K))


def test_refinement_leaves_its_input_alone_and_repeats_itself(problem):
    inputs_NH, energies_NE = problem
    ridge_EH = RidgeRouter(inputs_NH).weight(energies_NE)
    before_EH = ridge_EH.clone()
    first, second = (
        refine_router(ridge_EH, inputs_NH, energies_NE, TOP_K, seed=3, steps=5) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(ridge_EH, before_EH)


def test_the_slope_points_down_the_soft_objective(problem):
    inputs_NH, energies_NE = (values.double() for values in problem)
    weight_EH = RidgeRouter(inputs_NH).weight(energies_NE)
    slope_NE = _slope(inputs_NH @ weight_EH.T, energies_NE, TOP_K, 0.25)
    step_EH = slope_NE.T @ inputs_NH
    step_EH = step_EH * (1e-3 / step_EH.norm())
    there = _soft_dropped(weight_EH - step_EH, inputs_NH, energies_NE, 0.25)
    assert there < _soft_dropped(weight_EH, inputs_NH, energies_NE, 0.25)


def test_refinement_has_nothing_to_do_when_all_experts_are_kept(problem):
    inputs_NH, energies_NE = problem
    weight_EH = torch.ones(NUM_EXPERTS, WIDTH)
    assert refine_router(weight_EH, inputs_NH, energies_NE, NUM_EXPERTS, seed=0) is weight_EH


def test_scaling_sets_the_spread_and_keeps_the_ranking(problem):
    inputs_NH, energies_NE = problem
    weight_EH = RidgeRouter(inputs_NH).weight(energies_NE)
    scaled_EH = scale_router(weight_EH, inputs_NH, 1e-4)
    scores_NE = inputs_NH @ scaled_EH.T
    assert float(scores_NE.std()) == pytest.approx(1e-4, rel=1e-3)
    assert torch.equal(scores_NE.topk(TOP_K).indices, (inputs_NH @ weight_EH.T).topk(TOP_K).indices)
    torch.testing.assert_close(
        scores_NE.softmax(dim=1), torch.full_like(scores_NE, 1 / NUM_EXPERTS), rtol=1e-3, atol=0
    )


def test_scaling_a_router_that_prefers_nothing_leaves_it_so():
    zero_EH = torch.zeros(NUM_EXPERTS, WIDTH)
    assert torch.equal(scale_router(zero_EH, torch.ones(3, WIDTH), 1e-4), zero_EH)


def test_an_oracle_hits_always(problem):
    _, energies_NE = problem
    assert hit_rate(energies_NE, energies_NE, TOP_K) == 1
    assert hit_rate(-energies_NE, energies_NE, TOP_K) < 0.5
