"""Have every expert m times, and choose m times as many of them.

Legend: E experts of the base, m copies, copy c of expert e is number c·E + e; R rows asked for.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.feasibility import FEASIBLE
from veche.surgery.operations.lazy import Array, LazyTensor, Rows, gathered
from veche.surgery.operations.operation import Growth, Operation
from veche.surgery.operations.randomness import split_in_two, words

_OF_ONE_EXPERT = (TensorKind.EXPERT_GATE, TensorKind.EXPERT_UP, TensorKind.EXPERT_DOWN)


def _places(role: TensorRole, growth: Growth) -> tuple[TensorRole, ...]:
    """Copy the tensors of one expert to the places of its copies."""
    if role.kind not in _OF_ONE_EXPERT or role.expert is None:
        return (role,)
    first, step = role.expert, growth.base.num_experts
    return tuple(
        replace(role, expert=expert) for expert in range(first, growth.target.num_experts, step)
    )


def _repeated(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    """Repeat a stack of experts, or the router's rows, m times."""
    times = growth.target.num_experts // growth.base.num_experts
    return gathered(tensor, lambda rows: rows % tensor.num_rows, times * tensor.num_rows)


def _down(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    """Copy down, or give copies 2c and 2c + 1 twice a share of it each (split)."""
    copy, expert = divmod(role.expert or 0, growth.base.num_experts)
    if growth.mode != "split":
        return tensor

    def take(rows: Rows) -> Array:
        return _share(tensor.take(rows), rows, expert, copy, role, growth)

    return replace(tensor, take=take)


def _fused_down(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    repeated = _repeated(tensor, role, growth)
    if growth.mode != "split":
        return repeated
    hidden = growth.base.hidden_size

    def take(rows: Rows) -> Array:
        values = repeated.take(rows)
        numbers = rows // hidden
        for number in np.unique(numbers):
            inside = np.flatnonzero(numbers == number)
            copy, expert = divmod(int(number), growth.base.num_experts)
            values[inside] = _share(
                values[inside], rows[inside] % hidden, expert, copy, role, growth
            )
        return values

    return replace(tensor, num_rows=repeated.num_rows, take=take)


def _share(
    values: Array, rows: Rows, expert: int, copy: int, role: TensorRole, growth: Growth
) -> Array:
    """Return 2a for the first of a pair of copies and 2b for the second, where a + b = w.

    Both weigh 1/m of what the expert weighed, so a pair gives (2a + 2b)/m = 2w/m. Doubling is
    exact. With an odd m the last copy stays w.
    """
    pair, second = divmod(copy, 2)
    is_alone = copy == growth.target.num_experts // growth.base.num_experts - 1 and not second
    if is_alone:
        return values
    scope = ("experts", role.layer, expert, pair)
    shares = split_in_two(values, words(rows, values.shape[1], growth.seed, *scope))
    return (shares[second].astype(np.float32) * np.float32(2)).astype(values.dtype)


def _record(growth: Growth) -> Mapping[str, Any]:
    before, after = growth.base.num_experts, growth.target.num_experts
    return {
        "experts": {
            "new": list(range(before, after)),
            "source": [expert % before for expert in range(after)],
        },
        "how": "copies of old experts, chosen together with them"
        if growth.mode == "zero"
        else "copies of old experts, chosen together with them; down_proj is shared out in pairs",
    }


EXPERTS = Operation(
    name="experts",
    law=(
        "with m copies of every expert and of its router row, and m·k chosen, each copy weighs 1/m "
        "of what the expert weighed, normalised over the chosen or not"
    ),
    reference_url="https://arxiv.org/abs/2212.05055",
    feasibility="a whole multiple of the experts, with the same multiple of top-k",
    require_feasible=FEASIBLE["experts"],
    transforms={
        TensorKind.EXPERT_DOWN: _down,
        TensorKind.FUSED_GATE_UP: _repeated,
        TensorKind.FUSED_DOWN: _fused_down,
        TensorKind.ROUTER: _repeated,
    },
    places=_places,
    record=_record,
)
