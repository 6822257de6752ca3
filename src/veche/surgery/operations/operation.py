"""What a surgical operation is: a pure function from tensors of one model to those of a larger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from veche.checkpoint.families import TensorKind, TensorRole
from veche.checkpoint.spec import ModelSpec
from veche.planning.feasibility import Rule
from veche.planning.plan import Mode
from veche.surgery.operations.lazy import LazyTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What an operation may know besides the tensor in its hands.

    Attributes:
        base: the model before this operation.
        target: the model after it; they differ in this operation's fields alone.
        mode: how new units start.
        seed: of every random number.
    """

    base: ModelSpec
    target: ModelSpec
    mode: Mode
    seed: int


Transform = Callable[[LazyTensor, TensorRole, Growth], LazyTensor]
"""From a tensor of the base to that of the target at this role."""
Places = Callable[[TensorRole, Growth], tuple[TensorRole, ...]]
"""From a tensor's role in the base to the roles in the target that are made of it."""
Record = Callable[[Growth], Mapping[str, Any]]
"""What of the target is new, as JSON values for growth.json."""


def stays(role: TensorRole, growth: Growth) -> tuple[TensorRole, ...]:
    """Keep a tensor in its place."""
    return (role,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A surgical operation.

    NOTE: a transform depends on its own tensor, its role and the Growth alone, never on another
    tensor or on the order of the work; so any worker can do any rows of any tensor at any time.

    Attributes:
        name: as it stands in a plan.
        law: why the function stays the same, or how it changes.
        reference_url: where the operation comes from.
        feasibility: when it can be done exactly, in words.
        require_feasible: refuses what cannot be done, given the model before and after.
        transforms: what is done to each kind of tensor; the others pass unchanged.
        places: which tensors are made of one; by default the same.
        record: what is new in the target.
    """

    name: str
    law: str
    reference_url: str
    feasibility: str
    require_feasible: Rule
    transforms: Mapping[TensorKind, Transform]
    record: Record
    places: Places = stays
