"""Give every expert more hidden units.

Legend: I hidden units of the base, N of the target, H hidden size, E experts.
gate and up are [I, H], down is [H, I]; fused: gate_up [E, 2I, H], down [E, H, I].
"""

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole
from veche.surgery.operations.operation import (
    Growth,
    Operation,
    Tensor,
    split_in_two,
    standard_deviation,
)
from veche.surgery.operations.randomness import stream


def _grow_input(matrix_IH: Tensor, part: str, expert: int, layer: int, growth: Growth) -> Tensor:
    """Append rows to gate or up: random ones (zero mode) or copies of the chosen twins (split)."""
    missing = _num_new(growth)
    if growth.mode == "split":
        twins = _twins(layer, expert, growth)
        return np.concatenate([matrix_IH, matrix_IH[twins]])
    rng = stream(growth.seed, "expert_width", layer, expert, part)
    noise = rng.standard_normal((missing, matrix_IH.shape[1]), dtype=np.float32)
    rows = (noise * standard_deviation(matrix_IH)).astype(matrix_IH.dtype)
    return np.concatenate([matrix_IH, rows])


def _grow_output(down_HI: Tensor, expert: int, layer: int, growth: Growth) -> Tensor:
    """Append columns to down: zeros (zero mode) or the twins' shares (split)."""
    if growth.mode == "split":
        grown_HN = np.concatenate(
            [down_HI, np.empty((down_HI.shape[0], _num_new(growth)), down_HI.dtype)], axis=1
        )
        rng = stream(growth.seed, "expert_width", layer, expert, "down")
        start = down_HI.shape[1]
        for twins in _rounds(_twins(layer, expert, growth), start):
            old, new = split_in_two(grown_HN[:, twins], rng)
            grown_HN[:, twins] = old
            grown_HN[:, start : start + len(twins)] = new
            start += len(twins)
        return grown_HN
    zeros = np.zeros((down_HI.shape[0], _num_new(growth)), down_HI.dtype)
    return np.concatenate([down_HI, zeros], axis=1)


def _num_new(growth: Growth) -> int:
    before, after = growth.base.moe_intermediate_size, growth.target.moe_intermediate_size
    return (after or 0) - (before or 0)


def _twins(layer: int, expert: int, growth: Growth) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose the old unit that each new unit of an expert copies, whatever the files' layout.

    Every old unit is used once before any is used again.
    """
    width = growth.base.moe_intermediate_size or 0
    rng = stream(growth.seed, "expert_width", layer, expert, "twins")
    num_rounds = -(-_num_new(growth) // width)
    picks = [rng.permutation(width) for _ in range(num_rounds)]
    return np.concatenate(picks)[: _num_new(growth)]


def _rounds(twins: Tensor, width: int) -> list[Tensor]:
    """Cut the twins where an old unit would come twice, so that one split sees it once."""
    return [twins[start : start + width] for start in range(0, len(twins), width)]


def _gate(tensor: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    return _grow_input(tensor, "gate", role.expert or 0, role.layer or 0, growth)


def _up(tensor: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    return _grow_input(tensor, "up", role.expert or 0, role.layer or 0, growth)


def _down(tensor: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    return _grow_output(tensor, role.expert or 0, role.layer or 0, growth)


def _fused_gate_up(tensor_E2IH: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    layer, grown = role.layer or 0, []
    for expert, gate_up in enumerate(tensor_E2IH):
        gate, up = np.split(gate_up, 2)
        grown.append(
            np.concatenate(
                [
                    _grow_input(gate, "gate", expert, layer, growth),
                    _grow_input(up, "up", expert, layer, growth),
                ]
            )
        )
    return np.stack(grown)


def _fused_down(tensor_EHI: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    layer = role.layer or 0
    return np.stack(
        [_grow_output(down, expert, layer, growth) for expert, down in enumerate(tensor_EHI)]
    )


EXPERT_WIDTH = Operation(
    name="expert_width",
    law=(
        "Σᵢ downᵢ·silu(gateᵢ·x)·(upᵢ·x): a new unit adds nothing when its down column is zero, and "
        "a twin adds its share when the column it was split from is the sum of both"
    ),
    reference_url="https://arxiv.org/abs/1511.05641",
    transforms={
        TensorKind.EXPERT_GATE: _gate,
        TensorKind.EXPERT_UP: _up,
        TensorKind.EXPERT_DOWN: _down,
        TensorKind.FUSED_GATE_UP: _fused_gate_up,
        TensorKind.FUSED_DOWN: _fused_down,
    },
)
