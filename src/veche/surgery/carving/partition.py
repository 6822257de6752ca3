"""Divide a feed-forward layer's hidden units into experts of equal size.

Shape suffixes: N tokens, I hidden units, E experts, C = I/E units per expert, H model width,
P pairs of experts. `members_EC[e]` lists the units of expert e; every unit occurs once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Route = Callable[[Tensor], Tensor]
"""From each expert's energy `[N, E]` to the router's scores `[N, E]`."""


def unit_energies(activations_NI: Tensor, down_HI: Tensor, weight_N: Tensor) -> Tensor:
    r"""Return what each unit adds to the layer's output, as energy.

    $\epsilon_{nu} = w_n\, a_{nu}^2\, \lVert d_u \rVert^2$, where a is the unit's activation, d its
    column of `down` and w the token's weight. The units' contributions are almost orthogonal, so
    an expert's energy is the sum over its units.

    Source: the expert score of CMoE (arXiv:2502.04416) and of MoEfication (arXiv:2110.01786),
    taken through `down` and made independent of the scale of the token's residual stream.
    """
    return activations_NI.square() * weight_N[:, None] * down_HI.square().sum(dim=0)


def expert_energies(energies_NI: Tensor, members_EC: Tensor) -> Tensor:
    """Return each expert's energy `[N, E]`: the sum over its units."""
    num_experts, size = members_EC.shape
    owner_IE = energies_NI.new_zeros(num_experts * size, num_experts)
    owner_IE[members_EC.flatten(), torch.arange(num_experts).repeat_interleave(size)] = 1
    return energies_NI @ owner_IE


def kept_experts(scores_NE: Tensor, top_k: int) -> Tensor:
    """Return a mask `[N, E]`: 1 where the router keeps the expert, 0 where it drops it."""
    chosen_NK = scores_NE.topk(top_k, dim=1).indices
    return torch.zeros_like(scores_NE).scatter_(1, chosen_NK, 1.0)


def dropped_energy(energies_NE: Tensor, scores_NE: Tensor, top_k: int) -> Tensor:
    """Return the fraction of the layer's energy that lies in experts the router drops."""
    kept = (energies_NE * kept_experts(scores_NE, top_k)).sum()
    return 1 - kept / energies_NE.sum()


def sorted_partition(energies_NI: Tensor, num_experts: int) -> Tensor:
    """Return experts `[E, C]` of units sorted by mean energy, the strongest first.

    The first experts are then wanted by nearly every token and the last by few, which is
    already a good division (LLaMA-MoE, arXiv:2406.16554, compares others).
    """
    order_I = energies_NI.mean(dim=0).argsort(descending=True, stable=True)
    return order_I.view(num_experts, -1)


def balanced_partition(
    energies_NI: Tensor, members_EC: Tensor, route: Route, top_k: int, iterations: int
) -> Tensor:
    r"""Improve a partition by Lloyd iterations, keeping every expert's size.

    Alternates between routing, $m_{ne}$ = 1 where expert e is dropped for token n, and giving
    the units to experts so that $\sum_{e}\sum_{u \in e}\sum_n m_{ne}\epsilon_{nu}$ is least.

    NOTE: the second step can't raise the objective. The first can, when `route` is a fitted router
    and not the oracle (`lambda energies: energies`); the best partition seen is returned.
    """
    best_EC, least = members_EC, float("inf")
    for _ in range(iterations + 1):
        energies_NE = expert_energies(energies_NI, members_EC)
        dropped_NE = 1 - kept_experts(route(energies_NE), top_k)
        objective = float((energies_NE * dropped_NE).sum())
        if objective < least:
            best_EC, least = members_EC, objective
        members_EC = exchange_units(energies_NI.T @ dropped_NE, members_EC)
    return best_EC


def exchange_units(cost_IE: Tensor, members_EC: Tensor, max_sweeps: int = 6) -> Tensor:
    """Lower the total cost of a balanced assignment by exact exchanges between pairs of experts.

    For two experts the optimum is known: pool their units, sort by the difference of cost, and
    halve. All pairs meet once in each sweep; disjoint pairs are treated together.

    NOTE: no exchange raises the total, and sizes never change.
    """
    num_experts, size = members_EC.shape
    rounds = _pair_rounds(num_experts)
    for _ in range(max_sweeps):
        before_EC = members_EC
        for left_P, right_P in rounds:
            units_P2C = torch.cat((members_EC[left_P], members_EC[right_P]), dim=1)
            difference_P2C = (
                cost_IE[units_P2C, left_P[:, None]] - cost_IE[units_P2C, right_P[:, None]]
            )
            order_P2C = difference_P2C.argsort(dim=1, stable=True)
            members_EC = members_EC.clone()
            members_EC[left_P] = units_P2C.gather(1, order_P2C[:, :size])
            members_EC[right_P] = units_P2C.gather(1, order_P2C[:, size:])
        if torch.equal(before_EC.sort(dim=1).values, members_EC.sort(dim=1).values):
            break
    return members_EC


def _pair_rounds(num_experts: int) -> list[tuple[Tensor, Tensor]]:
    """Return a round-robin tournament: rounds of disjoint pairs that together hold every pair."""
    players = list(range(num_experts + num_experts % 2))
    rounds = []
    for _ in range(len(players) - 1):
        pairs = zip(players[: len(players) // 2], reversed(players), strict=False)
        met = [pair for pair in pairs if max(pair) < num_experts]
        if met:
            left, right = zip(*met, strict=True)
            rounds.append((torch.tensor(left), torch.tensor(right)))
        players = [players[0], players[-1], *players[1:-1]]
    return rounds
