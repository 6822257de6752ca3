"""Carve one layer: which hidden units form an expert, and which experts a token needs.

Shape suffixes: N tokens, H model width, I hidden units, S shared units, R = I − S routed units,
E experts, C = R/E. This file imports torch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from veche.surgery.carving.partition import (
    balanced_partition,
    expert_energies,
    kept_experts,
    sorted_partition,
    unit_energies,
)
from veche.surgery.carving.router_fit import RidgeRouter, hit_rate, refine_router, scale_router

ROUTER_SPREAD = 1e-6
"""Standard deviation of the router's logits. The smaller it is, the nearer are the weights to 1/k;
at 1e-6 float32's softmax still tells apart experts a tenth of it from one another, and choosing the
other of two that close costs nothing (at 3e-7 it begins to)."""
_LLOYD_ITERATIONS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Into what every layer is divided.

    Attributes:
        num_experts: E.
        top_k: experts that a token will have.
        num_shared: S, hidden units that every token has besides; 0 where the family has none.
    """

    num_experts: int
    top_k: int
    num_shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CarvedLayer:
    """One layer's division and router.

    Attributes:
        members: the dense layer's hidden units by expert, [E, C].
        shared: the hidden units of the shared expert, [S].
        router: the router's weight, in float32, [E, H].
        down: the refitted `down` in float32, [H, I]; None where it is the dense layer's own.
        kept_energy: share of the output's energy in the units that the router keeps.
        hit_rate: share of the kept experts that an oracle would keep.
    """

    members: Tensor
    shared: Tensor
    router: Tensor
    down: Tensor | None = None
    kept_energy: float
    hit_rate: float


def fit_layer(
    activations_NI: Tensor,
    inputs_NH: Tensor,
    down_HI: Tensor,
    weight_N: Tensor,
    division: Division,
    *,
    seed: int,
) -> CarvedLayer:
    """Return a layer's partition and router.

    Args:
        activations_NI: of the hidden units.
        inputs_NH: what the router sees, in float32.
        down_HI: the layer's `down`.
        weight_N: what a token's energy is multiplied by.
        division: into what.
        seed: of the router's refinement.
    """
    energies_NI = unit_energies(activations_NI.float(), down_HI.float(), weight_N)
    shared_S, routed_R = _split_shared(energies_NI, division.num_shared)
    energies_NR = energies_NI[:, routed_R] if division.num_shared else energies_NI
    router = RidgeRouter(inputs_NH)
    members_EC = balanced_partition(
        energies_NR,
        sorted_partition(energies_NR, division.num_experts),
        router.scores,
        division.top_k,
        _LLOYD_ITERATIONS,
    )
    energies_NE = expert_energies(energies_NR, members_EC)
    weight_EH = refine_router(
        router.weight(energies_NE), inputs_NH, energies_NE, division.top_k, seed=seed
    )
    weight_EH = scale_router(weight_EH, inputs_NH, ROUTER_SPREAD)
    scores_NE = inputs_NH @ weight_EH.T
    dropped_NE = energies_NE * (1 - kept_experts(scores_NE, division.top_k))
    return CarvedLayer(
        members=routed_R[members_EC].sort(dim=1).values,
        shared=shared_S,
        router=weight_EH,
        kept_energy=1 - float(dropped_NE.sum() / energies_NI.sum()),
        hit_rate=hit_rate(scores_NE, energies_NE, division.top_k),
    )


def kept_units(layer: CarvedLayer, inputs_NH: Tensor, top_k: int) -> Tensor:
    """Return a mask `[N, I]`: 1 for the shared units and those of the experts that are kept."""
    kept_NE = kept_experts(inputs_NH @ layer.router.T, top_k)
    num_units = layer.members.numel() + layer.shared.numel()
    kept_NI = torch.ones(len(inputs_NH), num_units)
    kept_NI[:, layer.members.flatten()] = kept_NE.repeat_interleave(layer.members.shape[1], dim=1)
    return kept_NI


def _split_shared(energies_NI: Tensor, num_shared: int) -> tuple[Tensor, Tensor]:
    """Return the units of the largest mean energy, which all tokens get, and the others."""
    num_units = energies_NI.shape[1]
    if not num_shared:
        return torch.empty(0, dtype=torch.long), torch.arange(num_units)
    order_I = energies_NI.mean(dim=0).argsort(descending=True, stable=True)
    return order_I[:num_shared].sort().values, order_I[num_shared:].sort().values
