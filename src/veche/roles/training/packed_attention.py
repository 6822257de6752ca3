"""Attention over examples that lie end to end in one row: each sees itself alone, and no padding.

Shapes: H query heads, K key-value heads, N new tokens of all examples together, n_i of example i,
P_i prefix tokens of example i, D width of a head.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "veche_packed"
"""Of this attention, in transformers' registry."""


@dataclass(slots=True, kw_only=True)
class Packing:
    """How the examples of one row lie in it.

    Attributes:
        lengths: n_i, which add up to N.
        prefix_lengths: P_i; empty where there is no prefix.
        prefix: keys and values [1, K, ΣP_i, D] by layer, which have no gradient.
        kept: where keys and values of this pass are kept for the next, by layer; None keeps none.
    """

    lengths: tuple[int, ...]
    prefix_lengths: tuple[int, ...] = ()
    prefix: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None

    @property
    def positions(self) -> list[int]:
        """Of the new tokens: each example counts from 0, or from where its prefix ends."""
        before = self.prefix_lengths or (0,) * len(self.lengths)
        return [
            position
            for start, length in zip(before, self.lengths, strict=True)
            for position in range(start, start + length)
        ]


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend example by example; transformers' attention interface. Dropout is not applied.

    Args:
        module: the layer's attention.
        query: [1, H, N, D].
        key: [1, K, N, D].
        value: [1, K, N, D].
        attention_mask: not read: `packing` says what may be seen.
        packing: where each example lies.
        scaling: what q·k is multiplied by.
        sliding_window: positions that a token sees at most; None is all before it.
        kwargs: of other implementations.

    Returns:
        The outputs, [1, N, H, D], and no weights.
    """
    layer = int(module.layer_idx)
    if packing.kept is not None:
        packing.kept[layer] = (key, value)
    queries, keys, values = (_of_each(tensor, packing.lengths) for tensor in (query, key, value))
    if layer in packing.prefix:
        olds = [_of_each(tensor, packing.prefix_lengths) for tensor in packing.prefix[layer]]
        keys = [torch.cat(pair, dim=2) for pair in zip(olds[0], keys, strict=True)]
        values = [torch.cat(pair, dim=2) for pair in zip(olds[1], values, strict=True)]
    outputs = [
        _attend(*each, scaling, sliding_window) for each in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _of_each(tensor: torch.Tensor, lengths: tuple[int, ...]) -> list[torch.Tensor]:
    return [*torch.split(tensor, [*lengths], dim=2)]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Return one example's outputs, [1, H, n, D]."""
    num_new, num_all = query.shape[2], key.shape[2]
    is_whole = num_new == num_all and (sliding_window is None or num_all <= sliding_window)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    mask = None if is_whole else _mask(num_new, num_all, sliding_window, query.device)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_whole, scale=scaling
    )


def _mask(
    num_new: int, num_all: int, sliding_window: int | None, device: torch.device
) -> torch.Tensor:
    """Return [n, P + n], True where a new token may look."""
    at = torch.arange(num_all - num_new, num_all, device=device)[:, None]
    seen = torch.arange(num_all, device=device)[None]
    may_see = seen <= at
    return may_see if sliding_window is None else may_see & (seen > at - sliding_window)


AttentionInterface.register(NAME, packed_attention)
