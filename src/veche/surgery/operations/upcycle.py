"""Make a dense model a mixture of identical experts.

Legend: I hidden units, H hidden size, E experts, S hidden units of the shared expert.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from veche.checkpoint.families import TensorKind, TensorRole, moe_role
from veche.planning.feasibility import FEASIBLE
from veche.surgery.operations.lazy import Array, LazyTensor, Rows, standard_deviation, zeros
from veche.surgery.operations.operation import Growth, Operation
from veche.surgery.operations.randomness import gaussian, words

_EXPERT_OF = {
    TensorKind.DENSE_GATE: TensorKind.EXPERT_GATE,
    TensorKind.DENSE_UP: TensorKind.EXPERT_UP,
    TensorKind.DENSE_DOWN: TensorKind.EXPERT_DOWN,
}
_BESIDE = {TensorKind.DENSE_GATE: (TensorKind.ROUTER,)}
_BESIDE_WITH_SHARED_EXPERT = {
    TensorKind.DENSE_GATE: (TensorKind.ROUTER, TensorKind.SHARED_GATE, TensorKind.SHARED_ROUTER),
    TensorKind.DENSE_UP: (TensorKind.SHARED_UP,),
    TensorKind.DENSE_DOWN: (TensorKind.SHARED_DOWN,),
}


def _places(role: TensorRole, growth: Growth) -> tuple[TensorRole, ...]:
    """Copy an MLP's matrix to every expert, and make what stands beside them from it."""
    if role.kind not in _EXPERT_OF or role.layer is None:
        return (role,)
    target = growth.target
    has_shared = target.shared_expert_intermediate_size
    beside = (_BESIDE_WITH_SHARED_EXPERT if has_shared else _BESIDE).get(role.kind, ())
    return (
        *(moe_role(kind, target.family, role.layer) for kind in beside),
        *(
            moe_role(_EXPERT_OF[role.kind], target.family, role.layer, expert)
            for expert in range(target.num_experts)
        ),
    )


def _like_old_rows(tensor: LazyTensor, role: TensorRole, growth: Growth, num: int) -> LazyTensor:
    """Return random rows [num, H] of the dense matrix's standard deviation."""

    def take(rows: Rows) -> Array:
        random = words(rows, tensor.num_columns, growth.seed, "upcycle", role.layer, role.kind)
        deviation = standard_deviation(tensor, 0, tensor.num_rows, role.name)
        return gaussian(random, deviation, tensor.dtype)

    return replace(tensor, num_rows=num, take=take)


def _router(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    return _like_old_rows(tensor, role, growth, growth.target.num_experts)


def _shared_input(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    return _like_old_rows(tensor, role, growth, growth.target.shared_expert_intermediate_size or 0)


def _shared_down(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    width = growth.target.shared_expert_intermediate_size or 0
    return zeros(growth.target.hidden_size, width, tensor.dtype)


def _shared_router(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    return zeros(1, growth.target.hidden_size, tensor.dtype)


def _record(growth: Growth) -> Mapping[str, Any]:
    target = growth.target
    shared = target.shared_expert_intermediate_size
    return {
        "experts": {"new": list(range(1, target.num_experts)), "source": [0] * target.num_experts},
        "routers": "random",
        "shared_expert_units": {"old": 0, "new": shared or 0},
        "how": "copies of the dense MLP; a shared expert, where the family has one, is silent",
    }


UPCYCLE = Operation(
    name="upcycle",
    law="the weights of the chosen experts add up to one, so identical experts give what one gave",
    reference_url="https://arxiv.org/abs/2212.05055",
    feasibility="llama → mixtral, qwen2 → qwen2_moe, qwen3 → qwen3_moe; no biases in the MLP",
    require_feasible=FEASIBLE["upcycle"],
    transforms={
        TensorKind.ROUTER: _router,
        TensorKind.SHARED_GATE: _shared_input,
        TensorKind.SHARED_UP: _shared_input,
        TensorKind.SHARED_DOWN: _shared_down,
        TensorKind.SHARED_ROUTER: _shared_router,
    },
    places=_places,
    record=_record,
)
