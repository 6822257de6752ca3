import pytest
import torch

from veche.surgery.carving.partition import (
    balanced_partition,
    dropped_energy,
    exchange_units,
    expert_energies,
    kept_experts,
    sorted_partition,
    unit_energies,
)

NUM_TOKENS, NUM_UNITS, NUM_EXPERTS, TOP_K = 200, 48, 6, 4


@pytest.fixture
def energies():
    """Units that fire in groups: each token wakes some of eight groups."""
    random = torch.Generator().manual_seed(1)
    group_I = torch.arange(NUM_UNITS) % 8
    awake_NG = (torch.rand(NUM_TOKENS, 8, generator=random) < 0.4).float()
    noise_NI = torch.rand(NUM_TOKENS, NUM_UNITS, generator=random)
    return (awake_NG[:, group_I] + 0.1) * noise_NI


def _oracle(energies_NE):
    return energies_NE


def _total_cost(cost_IE, members_EC):
    return sum(cost_IE[units, expert].sum() for expert, units in enumerate(members_EC))


def _as_sets(members_EC):
    return {frozenset(units.tolist()) for units in members_EC}


def test_a_units_energy_is_the_squared_norm_of_what_it_adds():
    random = torch.Generator().manual_seed(0)
    activations_NI = torch.randn(5, 4, generator=random)
    down_HI = torch.randn(3, 4, generator=random)
    weight_N = torch.rand(5, generator=random)
    added_NI = unit_energies(activations_NI, down_HI, weight_N)
    for token in range(5):
        for unit in range(4):
            added_H = activations_NI[token, unit] * down_HI[:, unit]
            assert added_NI[token, unit] == pytest.approx(
                float(weight_N[token] * added_H.square().sum()), rel=1e-5
            )


def test_an_experts_energy_is_the_sum_over_its_units(energies):
    members_EC = torch.randperm(NUM_UNITS, generator=torch.Generator().manual_seed(2)).view(6, 8)
    energies_NE = expert_energies(energies, members_EC)
    for expert, units in enumerate(members_EC):
        torch.testing.assert_close(energies_NE[:, expert], energies[:, units].sum(dim=1))
    torch.testing.assert_close(energies_NE.sum(dim=1), energies.sum(dim=1))


def test_kept_experts_are_the_k_highest_scores():
    scores_NE = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    assert kept_experts(scores_NE, 2).tolist() == [[1, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize("num_experts", [1, 2, 3, 5, 8])
def test_exchange_never_raises_the_cost_and_keeps_the_sizes(num_experts):
    random = torch.Generator().manual_seed(num_experts)
    cost_IE = torch.rand(num_experts * 7, num_experts, generator=random, dtype=torch.float64)
    members_EC = torch.randperm(num_experts * 7, generator=random).view(num_experts, 7)
    cost = _total_cost(cost_IE, members_EC)
    for _ in range(4):
        members_EC = exchange_units(cost_IE, members_EC, max_sweeps=1)
        assert sorted(members_EC.flatten().tolist()) == list(range(num_experts * 7))
        assert _total_cost(cost_IE, members_EC) <= cost + 1e-12
        cost = _total_cost(cost_IE, members_EC)


def test_exchange_between_two_experts_is_optimal():
    """The slow reference tries every division of six units into two experts."""
    from itertools import combinations

    cost_IE = torch.rand(6, 2, generator=torch.Generator().manual_seed(3))
    divisions = (
        torch.tensor([left, [unit for unit in range(6) if unit not in left]])
        for left in map(list, combinations(range(6), 3))
    )
    best = min(float(_total_cost(cost_IE, members_EC)) for members_EC in divisions)
    found_EC = exchange_units(cost_IE, torch.arange(6).view(2, 3))
    assert float(_total_cost(cost_IE, found_EC)) == pytest.approx(best)


def test_lloyd_iterations_never_raise_the_oracles_dropped_energy(energies):
    members_EC = torch.randperm(NUM_UNITS, generator=torch.Generator().manual_seed(4)).view(6, 8)
    dropped = []
    for iterations in range(6):
        found_EC = balanced_partition(energies, members_EC, _oracle, TOP_K, iterations)
        energies_NE = expert_energies(energies, found_EC)
        dropped.append(float(dropped_energy(energies_NE, energies_NE, TOP_K)))
        assert sorted(found_EC.flatten().tolist()) == list(range(NUM_UNITS))
    assert dropped == sorted(dropped, reverse=True)
    assert dropped[-1] < 0.8 * dropped[0]


def test_the_order_of_units_does_not_matter(energies):
    order_I = torch.randperm(NUM_UNITS, generator=torch.Generator().manual_seed(5))

    def divide(energies_NI):
        start_EC = sorted_partition(energies_NI, NUM_EXPERTS)
        return balanced_partition(energies_NI, start_EC, _oracle, TOP_K, iterations=5)

    shuffled_EC = divide(energies[:, order_I])
    assert _as_sets(order_I[shuffled_EC]) == _as_sets(divide(energies))


def test_the_sorted_partition_puts_the_strongest_units_first(energies):
    members_EC = sorted_partition(energies, NUM_EXPERTS)
    means_E = energies.mean(dim=0)[members_EC].mean(dim=1)
    assert means_E.tolist() == sorted(means_E.tolist(), reverse=True)


def test_with_all_experts_nothing_is_dropped(energies):
    energies_NE = expert_energies(energies, sorted_partition(energies, NUM_EXPERTS))
    assert float(dropped_energy(energies_NE, energies_NE, NUM_EXPERTS)) == pytest.approx(
        0, abs=1e-6
    )
