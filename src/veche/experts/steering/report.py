"""A steering that was found, as rows of its experts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from veche.experts.steering.basis import SteeringBasis
from veche.experts.steering.contrast import Contrast


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeredExpert:
    """One expert that is favoured or muted.

    Attributes:
        layer: its layer's number in the model.
        expert: its number in the layer.
        basis: what a strength of 1 adds to its logit.
        difference: of activation rates, for − against.
        low: lower end of its 95 % interval.
        high: upper end.
        rate_for: share of the tokens of the set to steer for.
        rate_against: the same of the other set.
        q_value: adjusted for asking of all experts.
    """

    layer: int
    expert: int
    basis: float
    difference: float
    low: float
    high: float
    rate_for: float
    rate_against: float
    q_value: float


def steered_experts(steering: SteeringBasis, found: Contrast) -> Iterator[SteeredExpert]:
    """Yield the steered experts, those that differ most first."""
    size = np.abs(steering.basis)
    for flat in np.argsort(-size, axis=None, kind="stable")[: int((size > 0).sum())]:
        row, expert = np.unravel_index(flat, size.shape)
        at = (int(row), int(expert))
        yield SteeredExpert(
            layer=steering.layers[at[0]],
            expert=at[1],
            basis=float(steering.basis[at]),
            difference=float(found.difference[at]),
            low=float(found.low[at]),
            high=float(found.high[at]),
            rate_for=float(found.rate_for[at]),
            rate_against=float(found.rate_against[at]),
            q_value=float(found.q_values[at]),
        )


def found_dict(steering: SteeringBasis, found: Contrast) -> dict[str, Any]:
    """Return what `veche steer find --json` prints of a steering."""
    finding = steering.finding
    return {
        "model": steering.source.model,
        "identity": steering.source.identity,
        "towards": finding.towards,
        "away_from": finding.away_from,
        "num_for": finding.num_for,
        "num_against": finding.num_against,
        "num_experts": found.q_values.size,
        "num_significant": finding.num_significant,
        "smallest_p": found.smallest_p,
        "needed_together": found.needed_together,
        "experts": [asdict(expert) for expert in steered_experts(steering, found)],
    }
