"""Fit partition and router of every layer, on the activations that the carved model will see.

Shape suffixes: W windows, T tokens in a window, N = W·T, H model width, I hidden units, E experts,
C = I/E. This file imports torch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from veche.core.progress import Progress
from veche.surgery.carving.partition import (
    balanced_partition,
    dropped_energy,
    expert_energies,
    kept_experts,
    sorted_partition,
    unit_energies,
)
from veche.surgery.carving.router_fit import RidgeRouter, hit_rate, refine_router, scale_router
from veche.surgery.loading import Model

_ROUTER_SPREAD = 1e-6
"""Standard deviation of the router's logits. The smaller it is, the nearer are the weights to 1/k;
at 1e-6 float32's softmax still tells apart experts a tenth of it from one another, and choosing the
other of two that close costs nothing (at 3e-7 it begins to)."""
_LLOYD_ITERATIONS = 12
_WINDOWS_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CarvedLayer:
    """One layer's division and router.

    Attributes:
        members: the dense layer's hidden units by expert, [E, C].
        router: the router's weight, in float32, [E, H].
        kept_energy: share of the output's energy in the experts that the router keeps.
        hit_rate: share of the kept experts that an oracle would keep.
    """

    members: Tensor
    router: Tensor
    kept_energy: float
    hit_rate: float


@torch.no_grad()
def fit_layers(
    model: Model,
    tokens_WT: Tensor,
    *,
    num_experts: int,
    top_k: int,
    seed: int,
    progress: Progress,
) -> list[CarvedLayer]:
    """Walk through the dense model once, carving each layer before its output is passed on.

    NOTE: a layer's input is what the carved layers before it give with `top_k` experts, so each
    fit sees, and answers, the errors made so far.

    Args:
        model: the dense model; its dtype is computed in, the residual stream is in float32.
        tokens_WT: calibration text.
        num_experts: E.
        top_k: experts that a token will have.
        seed: of the router's refinement.
        progress: where to report.
    """
    core, dtype = model.model, model.dtype
    hidden_WTH = core.embed_tokens(tokens_WT)
    rotary = core.rotary_emb(hidden_WTH, torch.arange(tokens_WT.shape[1])[None])
    hidden_WTH = hidden_WTH.float()
    carved = []
    with progress.task("carve", len(core.layers)) as advance:
        for layer in core.layers:
            hidden_WTH = _attend(layer, hidden_WTH, rotary, dtype)
            residual_NH = hidden_WTH.flatten(0, 1)
            inputs_NH = layer.post_attention_layernorm(residual_NH.to(dtype))
            fit, output_NH = _carve_layer(
                layer.mlp, inputs_NH, residual_NH, num_experts, top_k, seed
            )
            hidden_WTH = hidden_WTH + output_NH.view_as(hidden_WTH)
            carved.append(fit)
            advance(1)
    return carved


def _attend(layer: Any, hidden_WTH: Tensor, rotary: Any, dtype: torch.dtype) -> Tensor:
    """Return the residual stream after a layer's attention, a few windows at a time."""
    parts = [
        part
        + layer.self_attn(
            hidden_states=layer.input_layernorm(part.to(dtype)),
            position_embeddings=rotary,
            attention_mask=None,
        )[0]
        for part in torch.split(hidden_WTH, _WINDOWS_AT_ONCE)
    ]
    return torch.cat(parts)


def _carve_layer(
    mlp: Any, inputs_NH: Tensor, residual_NH: Tensor, num_experts: int, top_k: int, seed: int
) -> tuple[CarvedLayer, Tensor]:
    """Return a layer's fit, and its output with `top_k` experts."""
    activations_NI = mlp.act_fn(mlp.gate_proj(inputs_NH)) * mlp.up_proj(inputs_NH)
    weight_N = 1 / (residual_NH + mlp.down_proj(activations_NI)).square().sum(dim=1)
    energies_NI = unit_energies(activations_NI.float(), mlp.down_proj.weight.float(), weight_N)

    inputs_NH = inputs_NH.float()
    router = RidgeRouter(inputs_NH)
    members_EC = balanced_partition(
        energies_NI,
        sorted_partition(energies_NI, num_experts),
        router.scores,
        top_k,
        _LLOYD_ITERATIONS,
    )
    members_EC = members_EC.sort(dim=1).values
    energies_NE = expert_energies(energies_NI, members_EC)
    weight_EH = refine_router(router.weight(energies_NE), inputs_NH, energies_NE, top_k, seed=seed)
    weight_EH = scale_router(weight_EH, inputs_NH, _ROUTER_SPREAD)

    scores_NE = inputs_NH @ weight_EH.T
    owner_I = members_EC.flatten().argsort() // members_EC.shape[1]
    kept_NI = kept_experts(scores_NE, top_k)[:, owner_I]
    fit = CarvedLayer(
        members=members_EC,
        router=weight_EH,
        kept_energy=1 - float(dropped_energy(energies_NE, scores_NE, top_k)),
        hit_rate=hit_rate(scores_NE, energies_NE, top_k),
    )
    return fit, mlp.down_proj(activations_NI * kept_NI.to(activations_NI.dtype))
