"""Give feed-forward blocks more hidden units: experts, shared experts and dense MLPs alike.

Legend: I hidden units of the base, N of the target, H hidden size, E experts, R rows asked for.
gate and up are [I, H], down is [H, I]; fused: gate_up [E, 2I, H], down [E, H, I].
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.feasibility import FEASIBLE
from veche.surgery.operations.lazy import Array, LazyTensor, Rows, standard_deviation
from veche.surgery.operations.operation import Growth, Operation, Transform
from veche.surgery.operations.randomness import gaussian, split_in_two, stream, words

_GATE, _UP, _BOTH = ("gate",), ("up",), ("gate", "up")


def _widths(growth: Growth, field: str) -> tuple[int, int]:
    return getattr(growth.base, field), getattr(growth.target, field)


def twins_of(growth: Growth, field: str, layer: int, expert: int) -> NDArray[np.int64]:
    """Return the old unit that each new one copies (split), for gate, up and down alike.

    Not in growth.json, where it would be megabytes: a growth's seed gives it again. Units are
    used in turn, in a random order, so that none is split again before all were.
    """
    old, new = _widths(growth, field)
    rng = stream(growth.seed, field, layer, expert, "twins")
    rounds = [rng.permutation(old) for _ in range(-(-(new - old) // old))]
    return np.concatenate(rounds)[: new - old]


def _grow_inputs(
    tensor: LazyTensor, role: TensorRole, growth: Growth, *, field: str, parts: tuple[str, ...]
) -> LazyTensor:
    """Append rows to every matrix of gate or up: random ones (zero mode) or twins (split)."""
    old, new = _widths(growth, field)
    layer = role.layer or 0
    num_blocks = tensor.num_rows // old

    def new_rows(block: int, units: Rows) -> Array:
        """Return new units (from 0) of a block, which is one part of one expert."""
        expert, part = divmod(block, len(parts))
        expert = expert if role.expert is None else role.expert
        if growth.mode == "split":
            return tensor.take(block * old + twins(expert)[units])
        random = words(units, tensor.num_columns, growth.seed, field, layer, expert, parts[part])
        return gaussian(random, deviation(block), tensor.dtype)

    @cache
    def deviation(block: int) -> float:
        return standard_deviation(tensor, block * old, (block + 1) * old, role.name)

    @cache
    def twins(expert: int) -> NDArray[np.int64]:
        return twins_of(growth, field, layer, expert)

    def take(rows: Rows) -> Array:
        blocks, units = rows // new, rows % new
        is_old = units < old
        out = np.empty((len(rows), tensor.num_columns), tensor.dtype)
        out[is_old] = tensor.take((blocks * old + units)[is_old])
        for block in np.unique(blocks[~is_old]):
            chosen = ~is_old & (blocks == block)
            out[chosen] = new_rows(int(block), units[chosen] - old)
        return out

    return replace(tensor, num_rows=num_blocks * new, take=take)


def _grow_output(tensor: LazyTensor, role: TensorRole, growth: Growth, *, field: str) -> LazyTensor:
    """Append columns to down: zeros (zero mode) or the twins' shares (split)."""
    old, new = _widths(growth, field)
    layer, hidden = role.layer or 0, growth.base.hidden_size

    def split(grown_RN: Array, rows: Rows, expert: int) -> None:
        random = words(rows, new - old, growth.seed, field, layer, expert, "down")
        twins = twins_of(growth, field, layer, expert)
        # An old unit may be split several times, but once in each round.
        for start in range(0, new - old, old):
            units = twins[start : start + old]
            shares = split_in_two(grown_RN[:, units], random[:, start : start + old])
            grown_RN[:, units], grown_RN[:, old + start : old + start + len(units)] = shares

    def take(rows: Rows) -> Array:
        grown_RN = np.zeros((len(rows), new), tensor.dtype)
        grown_RN[:, :old] = tensor.take(rows)
        if growth.mode == "split":
            experts = rows // hidden
            for expert in np.unique(experts):
                inside = np.flatnonzero(experts == expert)
                part = grown_RN[inside]
                own = int(expert) if role.expert is None else role.expert
                split(part, rows[inside] % hidden, own)
                grown_RN[inside] = part
        return grown_RN

    return replace(tensor, num_columns=new, take=take)


def _record(growth: Growth, *, field: str) -> Mapping[str, Any]:
    old, new = _widths(growth, field)
    return {
        field: {"old": old, "new": new},
        "how": "silent: zero columns in down_proj"
        if growth.mode == "zero"
        else "twins of old units, each with a share of its down_proj column",
    }


def _operation(
    name: str,
    field: str,
    kinds: tuple[TensorKind, TensorKind, TensorKind],
    fused: Mapping[TensorKind, Transform] | None = None,
) -> Operation:
    """Return the operation that widens the MLPs of which `field` is the width.

    Args:
        name: of the operation.
        field: ModelSpec's field.
        kinds: of gate, up and down.
        fused: what is done to stacks of experts.
    """
    gate, up, down = kinds
    inputs: Callable[..., LazyTensor] = partial(_grow_inputs, field=field)
    return Operation(
        name=name,
        law=(
            "Σᵢ downᵢ·silu(gateᵢ·x)·(upᵢ·x): a new unit adds nothing when its down column is "
            "zero, and a twin adds its share when the column it was split from is the sum of both"
        ),
        reference_url="https://arxiv.org/abs/1511.05641",
        feasibility="any larger width",
        require_feasible=FEASIBLE[name],
        transforms={
            gate: partial(inputs, parts=_GATE),
            up: partial(inputs, parts=_UP),
            down: partial(_grow_output, field=field),
            **(fused or {}),
        },
        record=partial(_record, field=field),
    )


EXPERT_WIDTH = _operation(
    "expert_width",
    "moe_intermediate_size",
    (TensorKind.EXPERT_GATE, TensorKind.EXPERT_UP, TensorKind.EXPERT_DOWN),
    {
        TensorKind.FUSED_GATE_UP: partial(_grow_inputs, field="moe_intermediate_size", parts=_BOTH),
        TensorKind.FUSED_DOWN: partial(_grow_output, field="moe_intermediate_size"),
    },
)
SHARED_EXPERT_WIDTH = _operation(
    "shared_expert_width",
    "shared_expert_intermediate_size",
    (TensorKind.SHARED_GATE, TensorKind.SHARED_UP, TensorKind.SHARED_DOWN),
)
DENSE_WIDTH = _operation(
    "dense_width",
    "intermediate_size",
    (TensorKind.DENSE_GATE, TensorKind.DENSE_UP, TensorKind.DENSE_DOWN),
)
