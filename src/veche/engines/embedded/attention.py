"""Attention of a batch of branches over what they share: read once, merged by log-sum-exp.

Shapes: B rows (branches), H query heads, K key-value heads, G = H / K query heads a key-value head,
Q new tokens a row, N positions of one part, P positions of the own part, D width of a head.

softmax over all positions = the parts' own softmaxes, weighted by exp(lse_part − lse_all). Source:
Hydragen, arXiv 2402.05099, section 3.1; cascade inference of FlashInfer, arXiv 2501.01005.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from veche.engines.cancelled import CancelledError
from veche.engines.embedded import head_statistics
from veche.engines.embedded.kv_cache import Segment

NAME = "veche_branches"
"""Of this attention, in transformers' registry."""
_Part = tuple[torch.Tensor, torch.Tensor]
"""An output [B, H, Q, D] and its log-sum-exp [B, H, Q]."""


@dataclass(slots=True, kw_only=True)
class ForwardPass:
    """What every layer's attention must know of one pass over Q new tokens a row.

    Attributes:
        prefix: segments that all rows share, first to last.
        positions: [B, P], absolute, of the own part: earlier own tokens, then the new ones.
        is_real: [B, P], False for padding; None where nothing is padded.
        cancel: once it is set, the next layer raises CancelledError.
        heads: who listens to the heads; None is nobody.
        counts: [B, Q], which new tokens count for the heads' similarity.
    """

    prefix: Sequence[Segment]
    positions: torch.Tensor
    is_real: torch.Tensor | None = None
    cancel: Event | None = None
    heads: head_statistics.HeadTap | None = None
    counts: torch.Tensor | None = None
    masks: dict[Any, torch.Tensor | None] = field(default_factory=dict)
    """Made by the first layer, for all others."""


def branch_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    forward_pass: ForwardPass | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the shared prefix and to the own part; transformers' attention interface.

    Args:
        module: the layer's attention.
        query: [B, H, Q, D].
        key: [B, K, P, D], of the own part.
        value: [B, K, P, D].
        attention_mask: only without `forward_pass`.
        scaling: what q·k is multiplied by.
        forward_pass: None is a pass that is not the engine's: plain sdpa.
        kwargs: of other implementations.

    Returns:
        The outputs, [B, Q, H, D], and no weights.
    """
    if forward_pass is None:
        output: torch.Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )[0]
        return output, None
    if forward_pass.cancel is not None and forward_pass.cancel.is_set():
        raise CancelledError
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts = [
        _packed(query, keys, values, None, scale)
        for keys, values in (segment.layers[module.layer_idx] for segment in forward_pass.prefix)
    ]
    parts += _own_parts(forward_pass, query, key, value, scale)
    if forward_pass.heads is not None:
        _listen(forward_pass, module, query, key, value, scale)
    return merged(parts).transpose(1, 2), None


def merged(parts: Sequence[_Part]) -> torch.Tensor:
    """Return Σ_i exp(lse_i − lse) · output_i, [B, H, Q, D], with lse = log Σ_i exp(lse_i)."""
    if len(parts) == 1:
        return parts[0][0]
    if len(parts) == 2:
        (first, first_lse), (second, second_lse) = parts
        share = torch.sigmoid(first_lse - second_lse)[..., None]
        return torch.lerp(second.to(share.dtype), first.to(share.dtype), share).to(first.dtype)
    weights = torch.stack([lse for _, lse in parts]).softmax(0)[..., None]
    outputs = torch.stack([output for output, _ in parts])
    return (weights * outputs.to(weights.dtype)).sum(0).to(outputs.dtype)


def _own_parts(
    forward_pass: ForwardPass,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
) -> list[_Part]:
    num_new, past = query.shape[2], key.shape[2] - query.shape[2]
    if num_new == 1:
        return [_packed(query, key, value, _padding_mask(forward_pass, key), scale)]
    parts = []
    if past:
        mask = _padding_mask(forward_pass, key[:, :, :past])
        parts.append(_packed(query, key[:, :, :past], value[:, :, :past], mask, scale))
    return [*parts, _square(forward_pass, query, key[:, :, past:], value[:, :, past:], scale)]


def _packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> _Part:
    """Let every query see all keys that the mask leaves, without a copy of a key.

    Queries of one key-value head are one long query; so are those of all rows where the keys are
    shared: each key is read once.
    """
    batch, heads, num_new, width = query.shape
    num_groups = key.shape[1]
    is_shared = key.shape[0] < batch
    packed = query.reshape(batch, num_groups, -1, width)
    if is_shared:
        packed = packed.transpose(0, 1).reshape(1, num_groups, -1, width)
    output, lse = _attend(packed, key, value, mask, scale)
    if is_shared:
        output = output.reshape(num_groups, batch, -1, width).transpose(0, 1)
        lse = lse.reshape(num_groups, batch, -1).transpose(0, 1)
    return output.reshape(batch, heads, num_new, width), lse.reshape(batch, heads, num_new)


def _square(
    forward_pass: ForwardPass,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
) -> _Part:
    """Let new tokens see themselves and those before them."""
    num_copies = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(num_copies, dim=1) for part in (key, value))
    if forward_pass.is_real is None:
        return _attend(query, key, value, None, scale, is_causal=True)
    return _attend(query, key, value, _square_mask(forward_pass, query), scale)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    *,
    is_causal: bool = False,
) -> _Part:
    """Return outputs and log-sum-exps in nats; heads of query and key are equal in number."""
    if query.device.type == "cpu":
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            query, key, value, 0.0, is_causal, attn_mask=mask, scale=scale
        )
        return output, lse
    # On a GPU: never run here. Its log-sum-exps are padded to a multiple of 32 queries.
    bias = None if mask is None else mask.expand(*query.shape[:3], key.shape[2])
    output, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(  # noqa: SLF001
        query, key, value, bias, True, 0.0, is_causal, scale=scale
    )
    return output, lse[..., : query.shape[2]]


def _padding_mask(forward_pass: ForwardPass, key: torch.Tensor) -> torch.Tensor | None:
    """Return what is added to the scores of own keys, [B, 1, 1, N]; None where none is padding."""
    if forward_pass.is_real is None:
        return None
    num_keys = key.shape[2]
    if num_keys not in forward_pass.masks:
        is_real = forward_pass.is_real[:, None, None, :num_keys]
        forward_pass.masks[num_keys] = _additive(is_real, key.dtype)
    return forward_pass.masks[num_keys]


def _square_mask(forward_pass: ForwardPass, query: torch.Tensor) -> torch.Tensor | None:
    """Return what is added to the scores among new tokens, [B, 1, Q, Q].

    Padding sees itself, so that no row of scores is empty; nobody sees padding.
    """
    if "square" not in forward_pass.masks:
        num_new = query.shape[2]
        assert forward_pass.is_real is not None  # noqa: S101 - the caller has looked
        is_real = forward_pass.is_real[:, None, None, -num_new:]
        ones = torch.ones(num_new, num_new, dtype=torch.bool, device=query.device)
        is_seen = (ones.tril() & is_real) | torch.eye(
            num_new, dtype=torch.bool, device=query.device
        )
        forward_pass.masks["square"] = _additive(is_seen, query.dtype)
    return forward_pass.masks["square"]


def _additive(is_seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # Finite: a part that a row sees nothing of must weigh nothing, and not be NaN.
    lowest = max(torch.finfo(dtype).min / 2, -1e30)
    return torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device).masked_fill(
        ~is_seen, lowest
    )


def _listen(
    forward_pass: ForwardPass,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
) -> None:
    segments, start = [], 0
    for segment in forward_pass.prefix:
        keys, values = segment.layers[module.layer_idx]
        positions = torch.arange(start, start + segment.num_tokens, device=query.device)[None]
        segments.append(head_statistics.Segment(keys=keys, values=values, positions=positions))
        start += segment.num_tokens
    segments.append(
        head_statistics.Segment(
            keys=key,
            values=value,
            positions=forward_pass.positions,
            is_real=forward_pass.is_real,
        )
    )
    assert forward_pass.heads is not None  # noqa: S101 - the caller has looked
    forward_pass.heads.record(
        head_statistics.read_heads(
            query,
            segments,
            query_positions=forward_pass.positions[:, -query.shape[2] :],
            scaling=scale,
            output_weight=_output_weight(module),
            counts=forward_pass.counts,
        )
    )


def _output_weight(module: nn.Module) -> torch.Tensor:
    """Return the output projection's own weight, under whatever adapter wraps it."""
    projection: Any = module.o_proj
    weight: torch.Tensor = getattr(projection, "base_layer", projection).weight
    return weight


AttentionInterface.register(NAME, branch_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
