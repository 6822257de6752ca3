"""Measure voices from within: signals of the model, never its words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from veche.council.agreement import disagreement
from veche.engines.protocol import BranchResult
from veche.experts.metrics import token_entropy


def measure(
    results: Mapping[str, Sequence[BranchResult]], matrix: Sequence[Sequence[float]] | None
) -> dict[str, Any]:
    """Return the signals of one step; a signal that the engine can't give is left out.

    `token_entropy`: mean entropy of each voice's next-token distributions, in nats.
    `routing_entropy`: mean normalised entropy of its tokens' expert weights, 0–1.
    `agreement`, `disagreement`: between the step's texts, where there are several.
    """
    signals: dict[str, Any] = {}
    entropies = {
        voice: _mean([value for result in said for value in result.entropies or ()])
        for voice, said in results.items()
    }
    routed = {
        voice: _mean(
            [
                float(value)
                for result in said
                if result.routing is not None
                for value in token_entropy(result.routing.weights).mean(-1)
            ]
        )
        for voice, said in results.items()
    }
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
