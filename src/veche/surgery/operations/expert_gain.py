"""Keep carved experts as loud as they were when top-k changes.

A carved checkpoint routes with equal weights 1/k. With k' experts each weight is 1/k', so every
expert's contribution would be multiplied by k/k'; scaling `down` by k'/k undoes it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.feasibility import FEASIBLE
from veche.surgery.operations.lazy import Array, LazyTensor, Rows
from veche.surgery.operations.operation import Growth, Operation


def gain_of(growth: Growth) -> float:
    """Return k'/k."""
    return growth.target.num_experts_per_tok / growth.base.num_experts_per_tok


def _scaled(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    gain = np.float32(gain_of(growth))

    def take(rows: Rows) -> Array:
        return (tensor.take(rows).astype(np.float32) * gain).astype(tensor.dtype)

    return replace(tensor, take=take)


def _record(growth: Growth) -> Mapping[str, Any]:
    return {"gain": gain_of(growth)}


EXPERT_GAIN = Operation(
    name="expert_gain",
    law="Σ over k' experts of (1/k')·(k'/k)·f = Σ over k' experts of (1/k)·f",
    reference_url="https://arxiv.org/abs/2502.04416",
    feasibility="carved checkpoints, whose routing weights are equal",
    require_feasible=FEASIBLE["expert_gain"],
    transforms={TensorKind.EXPERT_DOWN: _scaled, TensorKind.FUSED_DOWN: _scaled},
    record=_record,
)
