"""Give attention more query heads and more key/value heads.

Legend: Q, K old query and key/value heads, R, L new ones, D head_dim, H hidden size.
q_proj is [Q·D, H], k_proj and v_proj are [K·D, H], o_proj is [H, Q·D].
"""

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.heads import HeadLayout, head_layout
from veche.surgery.operations.operation import (
    Growth,
    Operation,
    Tensor,
    split_in_two,
    standard_deviation,
)
from veche.surgery.operations.randomness import stream


def _layout(growth: Growth) -> HeadLayout:
    base, target = growth.base, growth.target
    return head_layout(
        base.num_attention_heads,
        base.num_key_value_heads,
        target.num_attention_heads,
        target.num_key_value_heads,
    )


def _twins(role: TensorRole, growth: Growth) -> dict[int, int]:
    """Choose, for every new query head, the old head of its key/value group that it copies.

    Heads of one group are used in turn, from a random start.
    """
    layout = _layout(growth)
    group = growth.base.group_size
    rng = stream(growth.seed, "attention_heads", role.layer, "twins")
    order = {kv: rng.permutation(group) for kv in range(growth.base.num_key_value_heads)}
    used = dict.fromkeys(order, 0)
    twins = {}
    for slot, source in enumerate(layout.q_source):
        if source is None:
            kv = layout.kv_source[slot // layout.group_size]
            twins[slot] = kv * group + int(order[kv][used[kv] % group])
            used[kv] += 1
    return twins


def _queries(tensor: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    """Move old heads to their slots; new ones are random (zero mode) or twins (split)."""
    old = tensor.reshape(growth.base.num_attention_heads, growth.base.head_dim, -1)
    layout = _layout(growth)
    new = np.empty((len(layout.q_source), *old.shape[1:]), tensor.dtype)
    twins = _twins(role, growth)
    rng = stream(growth.seed, "attention_heads", role.layer, role.kind)
    scale = standard_deviation(tensor)
    for slot, source in enumerate(layout.q_source):
        if source is not None:
            new[slot] = old[source]
        elif growth.mode == "split":
            new[slot] = old[twins[slot]]
        else:
            noise = rng.standard_normal(old.shape[1:], dtype=np.float32)
            new[slot] = (noise * scale).astype(tensor.dtype)
    return new.reshape(-1, *tensor.shape[1:])


def _keys_and_values(tensor: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    """Copy every old head to all the slots that stand for it."""
    heads = tensor.reshape(growth.base.num_key_value_heads, growth.base.head_dim, -1)
    return heads[list(_layout(growth).kv_source)].reshape(-1, *tensor.shape[1:])


def _output(tensor_HQD: Tensor, role: TensorRole, growth: Growth) -> Tensor:
    """Move the columns with their heads; new ones are zero, or take a share of their twin's."""
    hidden, head_dim = tensor_HQD.shape[0], growth.base.head_dim
    old = tensor_HQD.reshape(hidden, growth.base.num_attention_heads, head_dim)
    layout = _layout(growth)
    new = np.zeros((hidden, len(layout.q_source), head_dim), tensor_HQD.dtype)
    slot_of = {}
    for slot, source in enumerate(layout.q_source):
        if source is not None:
            new[:, slot] = old[:, source]
            slot_of[source] = slot
    if growth.mode == "split":
        rng = stream(growth.seed, "attention_heads", role.layer, role.kind)
        for slot, twin in _twins(role, growth).items():
            new[:, slot_of[twin]], new[:, slot] = split_in_two(new[:, slot_of[twin]], rng)
    return new.reshape(hidden, -1)


ATTENTION_HEADS = Operation(
    name="attention_heads",
    law=(
        "attention is a sum over query heads: an old head that reads a copy of its key/value head "
        "adds what it added, a new one adds nothing (zero columns in o_proj) or its twin's share"
    ),
    reference_url="https://arxiv.org/abs/2305.13245",
    transforms={
        TensorKind.Q: _queries,
        TensorKind.Q_BIAS: _queries,
        TensorKind.K: _keys_and_values,
        TensorKind.V: _keys_and_values,
        TensorKind.K_BIAS: _keys_and_values,
        TensorKind.V_BIAS: _keys_and_values,
        TensorKind.O: _output,
    },
)
