"""Keep carved experts as loud as they were when top-k changes.

A carved checkpoint routes with equal weights 1/k. With k' experts each weight is 1/k', so every
expert's contribution would be multiplied by k/k'; scaling `down` by k'/k undoes it.
"""

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole
from veche.surgery.operations.operation import Growth, Operation, Tensor


def gain_of(growth: Growth) -> float:
    """Return k'/k."""
    return growth.target.num_experts_per_tok / growth.base.num_experts_per_tok


def _scale(tensor: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    return (tensor.astype(np.float32) * np.float32(gain_of(growth))).astype(tensor.dtype)


EXPERT_GAIN = Operation(
    name="expert_gain",
    law="Σ over k' experts of (1/k')·(k'/k)·f = Σ over k' experts of (1/k)·f",
    reference_url="https://arxiv.org/abs/2502.04416",
    transforms={TensorKind.EXPERT_DOWN: _scale, TensorKind.FUSED_DOWN: _scale},
)
