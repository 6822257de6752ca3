"""The balance loss against the published equation, its limits, and transformers' own."""

import math

import numpy as np
import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from veche.experts.balance_loss import load_balancing_loss


def published(layers, top_k, is_real=None):
    """Equations 4–6 of arXiv 2101.03961 token by token, k choices each worth 1/k; mean of layers.

    Slow on purpose; without α.
    """
    losses = []
    for logits in layers:
        real = [row for t, row in enumerate(logits) if is_real is None or is_real[t]]
        num_experts = len(real[0])
        fraction, prob = [0.0] * num_experts, [0.0] * num_experts
        for row in real:
            exponentials = [math.exp(x) for x in row]
            probs = [x / sum(exponentials) for x in exponentials]
            for expert in sorted(range(num_experts), key=lambda e: -probs[e])[:top_k]:
                fraction[expert] += 1 / (top_k * len(real))
            for expert, p in enumerate(probs):
                prob[expert] += p / len(real)
        losses.append(num_experts * sum(f * p for f, p in zip(fraction, prob, strict=True)))
    return sum(losses) / len(losses)


def layers_of(num, *, tokens=12, experts=6, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return [scale * rng.normal(size=(tokens, experts)) for _ in range(num)]


def tensors(layers, **options):
    return [torch.tensor(layer, **options) for layer in layers]


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_it_is_the_published_equation(top_k, num_layers):
    layers = layers_of(num_layers)
    assert load_balancing_loss(tensors(layers), top_k).item() == pytest.approx(
        published(layers, top_k), rel=1e-6
    )


def test_uniform_routing_gives_one_and_collapsed_routing_e_over_k():
    tokens, experts = 24, 8
    for top_k in (1, 2, 4):
        sure = 80.0 * torch.eye(experts)[torch.arange(tokens) % experts]
        # Each token's next favourites are its neighbours in a circle, so all are used alike.
        for place in range(1, top_k):
            sure += (80.0 - place / 1e3) * torch.eye(experts)[
                (torch.arange(tokens) + place) % experts
            ]
        assert load_balancing_loss([sure], top_k).item() == pytest.approx(1, abs=1e-4)
        collapsed = torch.zeros(tokens, experts)
        collapsed[:, :top_k] = 80
        assert load_balancing_loss([collapsed], top_k).item() == pytest.approx(experts / top_k)


def test_padding_changes_nothing_even_where_it_holds_nan():
    layers = tensors(layers_of(2))
    is_real = torch.ones(2, 9, dtype=torch.bool)
    is_real[0, :4] = is_real[1, 7:] = False
    padded = []
    for layer in layers:
        filled = torch.full((18, 6), math.nan, dtype=torch.double)
        filled[is_real.flatten()] = layer
        padded.append(filled.reshape(2, 9, 6).requires_grad_())
    loss = load_balancing_loss(padded, 2, is_real=is_real)
    assert loss.item() == pytest.approx(load_balancing_loss(layers, 2).item())
    loss.backward()
    for layer in padded:
        assert (layer.grad[~is_real] == 0).all()
        assert layer.grad.isfinite().all()
    nothing = load_balancing_loss(padded, 2, is_real=torch.zeros(2, 9))
    assert nothing.item() == 0


def test_the_gradient_is_that_of_finite_differences_and_reaches_every_layer():
    layers = layers_of(2, tokens=5, experts=4)
    given = [layer.requires_grad_() for layer in tensors(layers)]
    load_balancing_loss(given, 2).backward()
    step = 1e-6
    for index, layer in enumerate(layers):
        assert given[index].grad.abs().sum() > 0
        for place in np.ndindex(layer.shape):
            moved = [one.copy() for one in layers]
            moved[index][place] += step
            up = published(moved, 2)
            moved[index][place] -= 2 * step
            slope = (up - published(moved, 2)) / (2 * step)
            assert given[index].grad[place].item() == pytest.approx(slope, abs=1e-6)


def test_descending_it_balances_a_collapsed_router():
    inputs = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    router = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)) / 4
    bias = torch.tensor([3.0, 0.0, 0.0, 0.0]).requires_grad_()
    before = load_balancing_loss([inputs @ router + bias], 1).item()
    optimizer = torch.optim.SGD([bias], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        load_balancing_loss([inputs @ router + bias], 1).backward()
        optimizer.step()
    assert before > 2.5
    assert load_balancing_loss([inputs @ router + bias], 1).item() < 1.05


class TestAgainstTransformers:
    def test_with_one_layer_it_is_k_times_ours(self):
        layers = layers_of(1)
        theirs = load_balancing_loss_func(tuple(tensors(layers, dtype=torch.float)), 6, 2)
        assert theirs.item() == pytest.approx(2 * load_balancing_loss(tensors(layers), 2).item())

    def test_pooled_over_layers_two_collapsed_layers_look_balanced(self):
        """Layer 0 uses expert 0 alone, layer 1 expert 1 alone: of two experts, pooled, uniform."""
        first, second = torch.zeros(8, 2), torch.zeros(8, 2)
        first[:, 0] = second[:, 1] = 80
        theirs = load_balancing_loss_func((first, second), 2, 1)
        assert theirs.item() == pytest.approx(1)  # the least that it can be
        assert load_balancing_loss([first, second], 1).item() == pytest.approx(2)  # the most

    def test_a_softmax_of_a_softmax_hides_the_collapse(self):
        collapsed = torch.zeros(8, 8)
        collapsed[:, 0] = 80
        of_logits = load_balancing_loss([collapsed], 1)
        of_probs = load_balancing_loss([collapsed.softmax(-1)], 1)
        assert of_logits.item() == pytest.approx(8)
        assert of_probs.item() == pytest.approx(8 * math.e / (math.e + 7))


def test_a_mask_of_another_length_and_no_layers_are_refused():
    with pytest.raises(ValueError, match="11 marks for 12 tokens"):
        load_balancing_loss(tensors(layers_of(1)), 2, is_real=torch.ones(11))
    with pytest.raises(ValueError, match="no layer"):
        load_balancing_loss([], 2)
