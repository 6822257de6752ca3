"""Experts for a few tokens at a time, as decoding has them.

Shapes: T tokens, E experts, k active experts a token, I width of an expert, H hidden size.

transformers' grouped kernel multiplies expert by expert, in 2 E small products; on a CPU each costs
more to start than to compute where experts are small. Here all experts are computed at once, in two
products, the ones that a token was not sent to with weight 0, as long as that reads little more.
"""

from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

NAME = "veche_few_tokens"
"""Of these experts, in transformers' registry."""
_MOST_TOKENS = 64
_CALL_BYTES = 1 << 20
"""What one expert's two products cost to start, in bytes that could be read meanwhile."""


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
    num_tokens = hidden_states.shape[0]
    inputs_ETH = hidden_states.expand(module.num_experts, num_tokens, -1)
    gate_up = torch.bmm(inputs_ETH, module.gate_up_proj.transpose(1, 2))
    gate, up = gate_up.chunk(2, dim=-1)
    outputs_ETH = torch.bmm(module.act_fn(gate) * up, module.down_proj.transpose(1, 2))
    weights_TE = top_k_weights.new_zeros(num_tokens, module.num_experts)
    # Added, not set: a slot that a token does not use has weight 0 and may name any expert.
    weights_TE.scatter_add_(1, top_k_index, top_k_weights)
    exact = torch.promote_types(outputs_ETH.dtype, torch.float32)
    weighted = torch.bmm(weights_TE[:, None].to(exact), outputs_ETH.transpose(0, 1).to(exact))
    return weighted[:, 0].to(hidden_states.dtype)


def use_few_tokens(model: Any) -> None:
    """Let a model on the CPU compute its experts so, where its kernel is the grouped one."""
    # Private names of transformers: its setter reloads nothing, but is there for some classes only.
    if getattr(model.config, "_experts_implementation", None) == "grouped_mm":
        model.config._experts_implementation = NAME  # noqa: SLF001


def _pays(module: Any, num_tokens: int, top_k: int) -> bool:
    weight = module.gate_up_proj
    if weight.dtype == torch.float64:  # which the grouped kernel does not take
        return True
    if weight.device.type != "cpu" or num_tokens > _MOST_TOKENS:
        return False
    expert_bytes = (weight[0].numel() + module.down_proj[0].numel()) * weight.element_size()
    num_used = min(module.num_experts, num_tokens * top_k)
    all_at_once = int(module.num_experts) * expert_bytes
    return bool(all_at_once <= num_used * (expert_bytes + _CALL_BYTES))


ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
