"""Give attention more query heads and more key/value heads.

Legend: Q, K old query and key/value heads, S slots for new query heads, D head_dim, H hidden size,
R rows asked for. q_proj is [Q·D, H], k_proj and v_proj are [K·D, H], o_proj is [H, Q·D].
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.feasibility import FEASIBLE
from veche.planning.heads import HeadLayout, head_layout
from veche.surgery.operations.lazy import Array, LazyTensor, Rows, gathered, standard_deviation
from veche.surgery.operations.operation import Growth, Operation
from veche.surgery.operations.randomness import gaussian, split_in_two, stream, words


def _layout(growth: Growth) -> HeadLayout:
    base, target = growth.base, growth.target
    return head_layout(
        base.num_attention_heads,
        base.num_key_value_heads,
        target.num_attention_heads,
        target.num_key_value_heads,
    )


def _new_slots(layout: HeadLayout) -> list[int]:
    return [slot for slot, source in enumerate(layout.q_source) if source is None]


def _twins(layer: int, growth: Growth) -> dict[int, int]:
    """Choose, for every new query head, the old head of its key/value group that it copies.

    Heads of one group are used in turn, from a random start.
    """
    layout = _layout(growth)
    group = growth.base.group_size
    rng = stream(growth.seed, "attention_heads", layer, "twins")
    order = {kv: rng.permutation(group) for kv in range(growth.base.num_key_value_heads)}
    used = dict.fromkeys(order, 0)
    twins = {}
    for slot in _new_slots(layout):
        kv = layout.kv_source[slot // layout.group_size]
        twins[slot] = kv * group + int(order[kv][used[kv] % group])
        used[kv] += 1
    return twins


def _queries(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    """Move old heads to their slots; new ones are random (zero mode) or twins (split)."""
    layout, head_dim, layer = _layout(growth), growth.base.head_dim, role.layer or 0
    slots = _new_slots(layout)
    twins = _twins(layer, growth) if growth.mode == "split" else {}
    source_S = np.array(
        [
            twins.get(slot, -1) if source is None else source
            for slot, source in enumerate(layout.q_source)
        ]
    )
    nth_new_S = np.cumsum(np.isin(np.arange(len(source_S)), slots)) - 1

    @cache
    def deviation() -> float:
        return standard_deviation(tensor, 0, tensor.num_rows, role.name)

    def take(rows: Rows) -> Array:
        slot, inside = rows // head_dim, rows % head_dim
        sources = source_S[slot]
        is_random = sources < 0
        out = np.empty((len(rows), tensor.num_columns), tensor.dtype)
        out[~is_random] = tensor.take((sources * head_dim + inside)[~is_random])
        if is_random.any():
            places = (nth_new_S[slot] * head_dim + inside)[is_random]
            scope = ("attention_heads", layer, role.kind)
            random = words(places, tensor.num_columns, growth.seed, *scope)
            out[is_random] = gaussian(random, deviation(), tensor.dtype)
        return out

    return replace(tensor, num_rows=len(source_S) * head_dim, take=take)


def _keys_and_values(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    """Copy every old head to all the slots that stand for it."""
    head_dim = growth.base.head_dim
    source_K = np.array(_layout(growth).kv_source)
    return gathered(
        tensor,
        lambda rows: source_K[rows // head_dim] * head_dim + rows % head_dim,
        len(source_K) * head_dim,
    )


def _output(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    """Move the columns with their heads; new ones are zero, or take a share of their twin's."""
    layout, head_dim, layer = _layout(growth), growth.base.head_dim, role.layer or 0
    num_slots = len(layout.q_source)
    old_slots = [slot for slot, source in enumerate(layout.q_source) if source is not None]
    sources = [source for source in layout.q_source if source is not None]
    slot_of = dict(zip(sources, old_slots, strict=True))
    twins = _twins(layer, growth) if growth.mode == "split" else {}

    def take(rows: Rows) -> Array:
        old_RQD = tensor.take(rows).reshape(len(rows), -1, head_dim)
        new_RSD = np.zeros((len(rows), num_slots, head_dim), tensor.dtype)
        new_RSD[:, old_slots] = old_RQD[:, sources]
        if twins:
            scope = ("attention_heads", layer, role.kind)
            random = words(rows, len(twins) * head_dim, growth.seed, *scope)
            random_RTD = random.reshape(len(rows), len(twins), head_dim)
            for index, (slot, twin) in enumerate(twins.items()):
                shares = split_in_two(new_RSD[:, slot_of[twin]], random_RTD[:, index])
                new_RSD[:, slot_of[twin]], new_RSD[:, slot] = shares
        return new_RSD.reshape(len(rows), -1)

    return replace(tensor, num_columns=num_slots * head_dim, take=take)


def _record(growth: Growth) -> Mapping[str, Any]:
    layout = _layout(growth)
    return {
        "head_dim": growth.base.head_dim,
        "query_heads": {
            "new": _new_slots(layout),
            "source": list(layout.q_source),
        },
        **_recorded_twins(growth),
        "key_value_heads": {"source": list(layout.kv_source)},
        "how": "silent: zero columns in o_proj"
        if growth.mode == "zero"
        else "twins of old heads, each with a share of its o_proj columns",
    }


def _recorded_twins(growth: Growth) -> dict[str, Any]:
    """Return, layer by layer, the old head that each new one is a twin of (split)."""
    if growth.mode != "split":
        return {}
    layers = range(growth.target.num_hidden_layers)
    return {"twins": [list(_twins(layer, growth).values()) for layer in layers]}


ATTENTION_HEADS = Operation(
    name="attention_heads",
    law=(
        "attention is a sum over query heads: an old head that reads a copy of its key/value head "
        "adds what it added, a new one adds nothing (zero columns in o_proj) or its twin's share"
    ),
    reference_url="https://arxiv.org/abs/2305.13245",
    feasibility="n_kv·⌈G / G'⌉ ≤ n_kv', where G = n_q / n_kv; not where all heads share one norm",
    require_feasible=FEASIBLE["attention_heads"],
    transforms={
        TensorKind.Q: _queries,
        TensorKind.Q_BIAS: _queries,
        TensorKind.K: _keys_and_values,
        TensorKind.V: _keys_and_values,
        TensorKind.K_BIAS: _keys_and_values,
        TensorKind.V_BIAS: _keys_and_values,
        TensorKind.O: _output,
    },
    record=_record,
)
