import torch

from veche.surgery.carving.refit import refit_down

_RANDOM = torch.Generator().manual_seed(0)


def _randn(*shape):
    return torch.randn(*shape, generator=_RANDOM)


def _problem(num_tokens=5000):
    """More tokens than are taken at once, half of the units dropped at random."""
    full_NI = _randn(num_tokens, 12)
    kept_NI = full_NI * (torch.rand(num_tokens, 12, generator=_RANDOM) < 0.5)
    down_HI = _randn(7, 12)
    return kept_NI, down_HI, full_NI @ down_HI.T, torch.rand(num_tokens, generator=_RANDOM)


def _error(kept_NI, down_HI, target_NH, weight_N):
    return float(((kept_NI @ down_HI.T - target_NH).square().sum(1) * weight_N).sum())


def test_where_nothing_is_dropped_nothing_changes():
    activations_NI, down_HI = _randn(100, 12), _randn(7, 12)
    refitted_HI = refit_down(activations_NI, down_HI, activations_NI @ down_HI.T, torch.ones(100))
    torch.testing.assert_close(refitted_HI, down_HI, rtol=0, atol=1e-5)


def test_it_is_weighted_least_squares_where_ridge_is_nothing():
    kept_NI, down_HI, target_NH, weight_N = _problem()
    root_N1 = weight_N.sqrt()[:, None]
    expected_IH = torch.linalg.lstsq(kept_NI * root_N1, target_NH * root_N1).solution
    refitted_HI = refit_down(kept_NI, down_HI, target_NH, weight_N, ridge=0.0)
    torch.testing.assert_close(refitted_HI, expected_IH.T, rtol=1e-3, atol=1e-3)


def test_its_gradient_vanishes():
    """What is minimised: the weighted error plus μ times the square of the change."""
    kept_NI, down_HI, target_NH, weight_N = _problem()
    mean = float((kept_NI.square() * weight_N[:, None]).sum(0).mean())
    refitted_HI = refit_down(kept_NI, down_HI, target_NH, weight_N, ridge=0.1)
    wanted_HI = refitted_HI.clone().requires_grad_()
    error = ((kept_NI @ wanted_HI.T - target_NH).square().sum(1) * weight_N).sum()
    (error + 0.1 * mean * (wanted_HI - down_HI).square().sum()).backward()
    assert float(wanted_HI.grad.abs().max()) < 1e-3 * float(error.detach())


def test_it_lowers_the_error_and_less_so_the_stronger_the_ridge():
    problem = _problem()
    kept_NI, _, target_NH, weight_N = problem
    errors = [
        _error(kept_NI, refit_down(*problem, ridge=ridge), target_NH, weight_N)
        for ridge in (0.0, 0.1, 1.0, 10.0)
    ]
    assert errors == sorted(errors)
    assert errors[-1] < _error(*problem)


def test_an_infinite_ridge_leaves_the_old_weight():
    kept_NI, down_HI, target_NH, weight_N = _problem()
    refitted_HI = refit_down(kept_NI, down_HI, target_NH, weight_N, ridge=1e9)
    torch.testing.assert_close(refitted_HI, down_HI, rtol=0, atol=1e-6)
