"""Measure voices from within: signals of the model, never its words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from veche.council.agreement import disagreement
from veche.engines.protocol import BranchResult
from veche.experts.metrics import expert_counts, load, load_entropy


def measure(
    results: Mapping[str, Sequence[BranchResult]], matrix: Sequence[Sequence[float]] | None
) -> dict[str, Any]:
    """Return the signals of one step; a signal that the engine can't give is left out.

    `token_entropy`: mean entropy of each voice's next-token distributions, in nats.
    `routing_entropy`: how evenly a voice's tokens use the experts, 0–1: the normalised entropy of
        its load, mean over layers; k of E experts for every token give at least ln k / ln E.
    `agreement`, `disagreement`: between the step's texts, where there are several.
    """
    signals: dict[str, Any] = {}
    entropies = {
        voice: _mean([value for result in said for value in result.entropies or ()])
        for voice, said in results.items()
    }
    routed = {voice: _routing_entropy(said) for voice, said in results.items()}
    for key, values in (("token_entropy", entropies), ("routing_entropy", routed)):
        known = {voice: round(value, 4) for voice, value in values.items() if value is not None}
        if known:
            signals[key] = known
    if matrix is not None:
        signals["agreement"] = [[round(value, 4) for value in row] for row in matrix]
        signals["disagreement"] = round(disagreement(matrix), 4)
    return signals


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _routing_entropy(results: Sequence[BranchResult]) -> float | None:
    routings = [result.routing for result in results if result.routing is not None]
    if not any(len(routing.expert_ids) for routing in routings):
        return None
    counts_LE = sum(expert_counts(routing.expert_ids, routing.num_experts) for routing in routings)
    return float(load_entropy(load(np.asarray(counts_LE))).mean())
