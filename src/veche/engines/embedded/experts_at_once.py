"""All experts of a layer at once, the ones that a token was not sent to with weight 0.

Shapes: T tokens, E experts, k active experts a token, I width of an expert, H hidden size.

transformers' grouped kernel multiplies expert by expert, in 2 E small products; on a CPU each costs
more to start than to compute where experts are small. Two large products do the same, as long as
they read and compute little more.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from veche.engines.embedded.packed_weights import PackedWeight, can_pack

NAME = "veche_at_once"
"""Of these experts, in transformers' registry."""
_CALL_BYTES = 1 << 20
"""What one expert's two products cost to start, in bytes that could be read meanwhile."""
_FEW_TOKENS = 64
_LEAST_SHARE = 0.5
"""Of experts that are active: with fewer, many tokens are computed expert by expert."""
_PACKED = "veche_packed"


def experts_forward(
    module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Return Σ_e w_te · down_e(act(gate_e x_t) ⊙ up_e x_t), [T, H]; an ExpertsInterface function.

    Args:
        module: the layer's experts, with `gate_up_proj` [E, 2I, H] and `down_proj` [E, H, I].
        hidden_states: [T, H].
        top_k_index: [T, k].
        top_k_weights: [T, k].
    """
    if not _pays(module, *top_k_index.shape):
        answer: torch.Tensor = grouped_mm_experts_forward(
            module, hidden_states, top_k_index, top_k_weights
        )
        return answer
    weights_TE = top_k_weights.new_zeros(len(hidden_states), module.num_experts)
    # Added, not set: a slot that a token does not use has weight 0 and may name any expert.
    weights_TE.scatter_add_(1, top_k_index, top_k_weights)
    gate, up = _gate_up(module, hidden_states).chunk(2, dim=-1)
    outputs_ETH = _down(module, module.act_fn(gate) * up)
    exact = torch.promote_types(outputs_ETH.dtype, torch.float32)
    weighted = torch.bmm(weights_TE[:, None].to(exact), outputs_ETH.transpose(0, 1).to(exact))
    return weighted[:, 0].to(hidden_states.dtype)


def use_at_once(model: Any) -> None:
    """Let a model on the CPU compute its experts so, where its kernel is the grouped one."""
    # Private names of transformers: its setter is there for some classes only.
    if getattr(model.config, "_experts_implementation", None) == "grouped_mm":
        model.config._experts_implementation = NAME  # noqa: SLF001


def packable_experts(model: nn.Module) -> list[Any]:
    """Return the experts modules that are computed at once for one token, and can be packed."""
    if getattr(getattr(model, "config", None), "_experts_implementation", None) != NAME:
        return []
    top_k = int(model.config.num_experts_per_tok)  # type: ignore[union-attr, arg-type]
    return [
        module
        for module in model.modules()
        if getattr(module, "gate_up_proj", None) is not None
        and getattr(module, "down_proj", None) is not None
        and hasattr(module, "num_experts")
        and can_pack(cast("torch.Tensor", module.gate_up_proj))
        and _pays(module, 1, top_k)
    ]


def pack_experts(modules: Iterable[Any]) -> None:
    """Give experts a packed copy of gate and up; the plain ones stay, and must not change."""
    for module in modules:
        gate_up = module.gate_up_proj.detach()
        setattr(module, _PACKED, PackedWeight(gate_up.reshape(-1, gate_up.shape[-1])))


def _gate_up(module: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Return gate and up of all experts, [E, T, 2I]."""
    packed = getattr(module, _PACKED, None)
    if packed is None:
        inputs_ETH = hidden_states.expand(module.num_experts, *hidden_states.shape)
        return torch.bmm(inputs_ETH, module.gate_up_proj.transpose(1, 2))
    answer: torch.Tensor = packed.linear(hidden_states)
    return answer.view(len(hidden_states), module.num_experts, -1).transpose(0, 1)


def _down(module: Any, inner_ETI: torch.Tensor) -> torch.Tensor:
    """Return each expert's output, [E, T, H], in the order that the type's kernel reads fast."""
    if inner_ETI.dtype == torch.float32:
        return torch.bmm(module.down_proj, inner_ETI.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(inner_ETI, module.down_proj.transpose(1, 2))


def _pays(module: Any, num_tokens: int, top_k: int) -> bool:
    weight = module.gate_up_proj
    if weight.dtype == torch.float64:  # which the grouped kernel does not take
        return True
    if weight.device.type != "cpu":
        return False
    if num_tokens > _FEW_TOKENS:
        return hasattr(module, _PACKED) and top_k >= _LEAST_SHARE * module.num_experts
    expert_bytes = (weight[0].numel() + module.down_proj[0].numel()) * weight.element_size()
    num_used = min(module.num_experts, num_tokens * top_k)
    all_at_once = int(module.num_experts) * expert_bytes
    return bool(all_at_once <= num_used * (expert_bytes + _CALL_BYTES))


ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
