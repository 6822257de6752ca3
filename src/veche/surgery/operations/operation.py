"""What a surgical operation is: a pure function from a tensor of the base to one of the target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.families import TensorKind, TensorRole
from veche.checkpoint.spec import ModelSpec
from veche.planning.plan import Mode

Tensor = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What an operation may know besides the tensor in its hands."""

    base: ModelSpec
    target: ModelSpec
    mode: Mode
    seed: int


Transform = Callable[[Tensor, TensorRole, Growth], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A surgical operation.

    NOTE: a transform depends on its own tensor, its role and the Growth alone, never on another
    tensor or on the order of the work; so any worker can do any tensor at any time.

    Attributes:
        name: as it stands in a plan.
        law: why the function stays the same, or how it changes.
        reference_url: where the operation comes from.
        transforms: what is done to each kind of tensor; the others pass unchanged.
    """

    name: str
    law: str
    reference_url: str
    transforms: dict[TensorKind, Transform]


def split_in_two(values: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Split every element w into a + b = w, bit for bit.

    a = round(α·w), α ~ U[½, 1], b = w − a, swapped with probability ½. Since w/2 ≤ |a| ≤ |w|, the
    difference w − a is representable (Sterbenz' lemma) and nothing is lost. A split by one scalar
    would leave twins that Adam never separates; a split per element does not.

    Args:
        values: of any float dtype and shape.
        rng: where α and the swaps come from.

    Returns:
        a and b, of the same dtype and shape.
    """
    wide = values.astype(np.float64)
    share = rng.uniform(0.5, 1.0, size=values.shape)
    first = (wide * share).astype(values.dtype)
    second = (wide - first.astype(np.float64)).astype(values.dtype)
    swap = rng.random(values.shape) < 0.5
    return np.where(swap, second, first), np.where(swap, first, second)


def standard_deviation(values: Tensor) -> float:
    """Return the standard deviation of a weight matrix, for new random units beside it."""
    return float(values.astype(np.float32).std())
