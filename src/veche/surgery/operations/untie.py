"""Give the output its own matrix, equal to the embedding at first."""

from collections.abc import Mapping
from typing import Any

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.feasibility import FEASIBLE
from veche.surgery.operations.operation import Growth, Operation

_LM_HEAD = TensorRole(kind=TensorKind.LM_HEAD, template="lm_head.weight")


def _places(role: TensorRole, growth: Growth) -> tuple[TensorRole, ...]:
    """Copy the embedding to lm_head; one that was stored while tied was never read, and goes."""
    if role.kind is TensorKind.EMBEDDING:
        return (role, _LM_HEAD)
    return () if role.kind is TensorKind.LM_HEAD else (role,)


def _record(growth: Growth) -> Mapping[str, Any]:
    return {"tensors": [_LM_HEAD.name], "how": "a copy of the embedding"}


UNTIE = Operation(
    name="untie",
    law="lm_head = embedding gives the logits that the tied model gives",
    reference_url="https://arxiv.org/abs/1608.05859",
    feasibility="embedding and output are tied",
    require_feasible=FEASIBLE["untie"],
    transforms={},
    places=_places,
    record=_record,
)
