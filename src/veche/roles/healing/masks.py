"""Which entries of a grown model's parameters are new: these alone move. This file imports torch.

Legend: Q query heads, D head_dim, H hidden size, E experts, I width of an expert.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from veche.checkpoint.spec import ModelSpec
from veche.experts.growth import LayerCapacity, MlpWidth, NewCapacity

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_EXPERTS: MlpWidth = "moe_intermediate_size"
_SHARED: MlpWidth = "shared_expert_intermediate_size"
_DENSE: MlpWidth = "intermediate_size"


def new_masks(
    shapes: Mapping[str, torch.Size], capacity: NewCapacity, spec: ModelSpec
) -> dict[str, Tensor]:
    """Return, for each parameter of which something is new, True where it is.

    A new query head owns rows of `q_proj` and columns of `o_proj`; keys and values are shared with
    old heads, and stay. A new unit owns a row of gate and up, a column of down. A new expert owns
    its projections and its row of the router. A new layer owns all that it holds.

    Args:
        shapes: of the model's parameters, by transformers' names.
        capacity: what is new.
        spec: the model.
    """
    masks = {}
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            continue
        layer = capacity.layers[int(match[1])]
        mask = torch.zeros(shape, dtype=torch.bool)
        if layer.is_new:
            mask.fill_(True)
        else:
            _mark(mask, match[2], layer, spec)
        if mask.any():
            masks[name] = mask
    return masks


def _mark(mask: Tensor, name: str, layer: LayerCapacity, spec: ModelSpec) -> None:
    if name in ("self_attn.q_proj.weight", "self_attn.q_proj.bias"):
        mask[_of_heads(layer.heads, spec.head_dim)] = True
    elif name == "self_attn.o_proj.weight":
        mask[:, _of_heads(layer.heads, spec.head_dim)] = True
    elif name == "mlp.gate.weight":
        mask[list(layer.experts)] = True
    elif name.startswith("mlp.experts."):
        mask[list(layer.experts)] = True
        _mark_units(mask, name, layer.units.get(_EXPERTS))
    elif name.startswith("mlp.shared_expert."):
        _mark_units(mask, name, layer.units.get(_SHARED))
    elif name.startswith("mlp."):
        _mark_units(mask, name, layer.units.get(_DENSE))


def _of_heads(heads: Iterable[int], head_dim: int) -> list[int]:
    return [head * head_dim + index for head in heads for index in range(head_dim)]


def _mark_units(mask: Tensor, name: str, units: range | None) -> None:
    """Mark units: columns of down; rows of gate and up, which experts keep in one tensor."""
    if not units:
        return
    new = list(units)
    if "down_proj" in name:
        mask[..., new] = True
    elif "gate_up_proj" in name:
        width = mask.shape[1] // 2
        mask[:, new + [width + unit for unit in new]] = True
    elif "gate_proj" in name or "up_proj" in name:
        mask[new] = True
