"""A run's routing in numbers, each with its null."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.engines.protocol import Routing
from veche.experts import metrics


def summarise(routing: Mapping[str, Routing]) -> dict[str, Any]:
    """Return what `veche experts --json` prints; figures are means over layers.

    `voices`: for each voice its tokens, load entropy, CV, MaxVio, dead experts a layer beside the
    number expected of uniform routing, and token entropy. `overlap` and `js_divergence`: matrices
    in the order of `voices`; the diagonal of `overlap` compares a voice's own tokens, and the null
    is `null_overlap` = k/E. A voice without tokens is left out.
    """
    spoken = {voice: routed for voice, routed in routing.items() if len(routed.expert_ids)}
    if not spoken:
        return {"voices": [], "overlap": [], "js_divergence": [], "null_overlap": None}
    any_routing = next(iter(spoken.values()))
    _, num_layers, top_k = any_routing.expert_ids.shape
    return {
        "num_experts": any_routing.num_experts,
        "num_layers": num_layers,
        "top_k": top_k,
        "voices": [_voice(name, routed) for name, routed in spoken.items()],
        "overlap": _listed(overlap_matrix(spoken)),
        "js_divergence": _listed(js_matrix(spoken)),
        "null_overlap": top_k / any_routing.num_experts,
    }


def overlap_matrix(routing: Mapping[str, Routing]) -> NDArray[np.float64]:
    """Return the overlap of every pair of voices; a voice with itself over different tokens."""
    routed = list(routing.values())
    matrix = np.empty((len(routed), len(routed)))
    for row, first in enumerate(routed):
        for column, second in enumerate(routed):
            matrix[row, column] = (
                metrics.self_overlap(first.expert_ids, first.num_experts)
                if row == column
                else metrics.overlap(first.expert_ids, second.expert_ids, first.num_experts)
            )
    return matrix


def js_matrix(routing: Mapping[str, Routing]) -> NDArray[np.float64]:
    """Return the Jensen–Shannon divergence of every pair of voices' loads, mean over layers."""
    loads = [_load(routed) for routed in routing.values()]
    return np.array(
        [[metrics.js_divergence(first, second).mean() for second in loads] for first in loads]
    )


def _voice(name: str, routed: Routing) -> dict[str, Any]:
    num_tokens, _, top_k = routed.expert_ids.shape
    counts = metrics.expert_counts(routed.expert_ids, routed.num_experts)
    load = metrics.load(counts)
    return {
        "name": name,
        "tokens": num_tokens,
        "load_entropy": float(metrics.load_entropy(load).mean()),
        "load_cv": float(metrics.load_cv(load).mean()),
        "max_violation": float(metrics.max_violation(load).mean()),
        "dead_experts": float(metrics.dead_experts(counts).mean()),
        "expected_dead_experts": metrics.expected_dead_experts(
            num_tokens, top_k, routed.num_experts
        ),
        "token_entropy": float(metrics.token_entropy(routed.weights).mean()),
    }


def _load(routed: Routing) -> NDArray[np.float64]:
    return metrics.load(metrics.expert_counts(routed.expert_ids, routed.num_experts))


def _listed(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
