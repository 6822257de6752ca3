"""Which experts differ: against slow counts, and against chance."""

import numpy as np
import pytest

from veche.core.errors import InputError
from veche.experts.steering.contrast import Activations, basis_of, contrast
from veche.experts.steering.evaluate import preference

L, E, K = 2, 6, 2


def texts(rng, num, *, likes=None, spread=0.0, tokens=30):
    """Return expert ids of each text [T, L, k]; `likes` is (layer, expert, log-odds)."""
    all_ids = []
    for _ in range(num):
        taste = rng.normal(0, spread, (L, E))  # what makes the tokens of one text alike
        if likes:
            taste[likes[0], likes[1]] += likes[2]
        noise = rng.gumbel(size=(tokens, L, E)) + taste
        all_ids.append(np.argsort(-noise, axis=-1)[..., :K])
    return all_ids


def activations(all_ids):
    counts = np.zeros((len(all_ids), L, E), np.int64)
    for n, ids in enumerate(all_ids):
        for token in ids:
            for layer in range(L):
                for expert in token[layer]:
                    counts[n, layer, expert] += 1
    return Activations(counts=counts, num_tokens=np.array([len(ids) for ids in all_ids]))


def test_rates_are_shares_of_all_tokens_as_in_the_paper():
    rng = np.random.default_rng(0)
    short, long = texts(rng, 1, tokens=3), texts(rng, 1, tokens=50)
    rates = activations([*short, *long]).rates
    tokens = np.concatenate([*short, *long])
    for layer in range(L):
        for expert in range(E):
            share = np.mean([expert in token[layer] for token in tokens])
            assert rates[layer, expert] == pytest.approx(share)
    assert rates.sum(-1) == pytest.approx(K)


def test_a_planted_expert_is_found_with_its_sign_and_the_swap_turns_it_around():
    rng = np.random.default_rng(1)
    for_ = activations(texts(rng, 16, likes=(1, 3, 1.5), spread=0.3))
    against = activations(texts(rng, 16, spread=0.3))
    found, swapped = contrast(for_, against), contrast(against, for_)
    assert found.q_values.argmin() == 1 * E + 3
    assert found.is_significant[1, 3]
    assert found.low[1, 3] > 0
    assert found.difference == pytest.approx(-swapped.difference)
    assert basis_of(found, most=1)[1, 3] == 1
    assert basis_of(swapped, most=1)[1, 3] == -1


def test_sets_of_one_kind_are_not_told_apart_though_their_tokens_would_seem_to_be():
    """Texts with a taste of their own: tokens are not independent, and texts are."""
    by_texts = by_tokens = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sides = [activations(texts(rng, 8, spread=1.0)) for _ in range(2)]
        found = contrast(*sides, seed=seed)
        by_texts += bool(found.is_significant.any())
        both = (found.rate_for + found.rate_against) / 2
        error = np.sqrt(both * (1 - both) * sum(1 / side.num_tokens.sum() for side in sides))
        by_tokens += bool((np.abs(found.difference) > 3 * error).any())  # p < 0.003
    assert by_texts <= 3
    assert by_tokens >= 10


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sides = [
            activations(texts(rng, 20, likes=(0, 0, 1.0), spread=0.4, tokens=12)) for _ in range(2)
        ]
        found = contrast(*sides, seed=seed)
        covered.append((found.low <= 0) & (found.high >= 0))
    assert 0.88 <= np.mean(covered) <= 0.99


def test_too_few_texts_are_told_and_cannot_find_anything():
    rng = np.random.default_rng(2)
    for_ = activations(texts(rng, 3, likes=(1, 3, 5.0)))
    against = activations(texts(rng, 3))
    found = contrast(for_, against)
    assert found.smallest_p == pytest.approx(2 / 20)  # (6 choose 3) deals, and their mirrors
    assert found.needed_together > L * E
    with pytest.raises(InputError, match=r"3 and 3 texts.*no p-value is below 0.1"):
        basis_of(found, most=5)
    with pytest.raises(InputError, match="has 1 text"):
        contrast(activations(texts(rng, 1)), against)


def test_a_basis_holds_the_largest_differences_of_the_layers_that_may_be_steered():
    rng = np.random.default_rng(3)
    found = contrast(
        activations(texts(rng, 30, likes=(0, 2, 2.0))),
        activations(texts(rng, 30, likes=(1, 4, 1.0))),
    )
    basis = basis_of(found, most=2)
    assert (basis != 0).sum() == 2
    assert np.abs(basis).max() == 1
    assert (np.sign(basis) == np.where(basis != 0, np.sign(found.difference), 0)).all()
    chosen = np.abs(found.difference)[basis != 0].min()
    left_out = np.abs(found.difference)[(basis == 0) & found.is_significant]
    assert chosen >= left_out.max(initial=0)
    assert not basis_of(found, most=20, rows=[1])[0].any()
    assert (basis_of(found, most=20) != 0).sum() == found.is_significant.sum()


def test_preference_cancels_what_costs_both_sets_alike():
    rng = np.random.default_rng(4)
    change = rng.normal(0.5, 0.1, 30)
    same = preference(change, rng.permutation(change))
    assert same.mean == pytest.approx(0)
    assert same.low < 0 < same.high
    leaning = preference(change, change + 0.4)
    assert leaning.mean == pytest.approx(0.4)
    assert leaning.is_above_zero
    assert preference(change + 0.4, change).is_below_zero


def test_one_expert_of_a_large_model_can_pass_if_there_are_texts_enough():
    rng = np.random.default_rng(5)
    for_, against = (
        Activations(
            counts=rng.integers(0, 20, (12, 8, 64)), num_tokens=np.full(12, 40, dtype=np.int64)
        )
        for _ in range(2)
    )
    for_.counts[:, 3, 5], against.counts[:, 3, 5] = 39, 1
    found = contrast(for_, against)
    assert found.needed_together == 1
    assert found.is_significant[3, 5]
