"""Experts that are not trained, as two large products: idle ones weigh 0 between them.

Shapes: T tokens, E experts, k active experts a token, I width of an expert, H hidden size.

Σ_e w_te · down_e(act(gate_e x_t) ⊙ up_e x_t): the weights are multiplied in before `down`, so that
the sum over experts is a part of the product. Where most experts are active, that is faster on a
CPU than 2 E small products, forwards and backwards (`benchmarks/training_throughput.py`).
"""

from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "veche_frozen"
"""Of these experts, in transformers' registry."""
_LEAST_SHARE = 0.5
"""Of experts that are active: with fewer, more is computed in vain than is saved."""


def experts_forward(
    module: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Return the experts' weighted sum, [T, H]; an ExpertsInterface function.

    Args:
        module: the layer's experts, with `gate_up_proj` [E, 2I, H] and `down_proj` [E, H, I].
        hidden_states: [T, H].
        top_k_index: [T, k].
        top_k_weights: [T, k].
    """
    num_tokens, num_experts = len(hidden_states), int(module.num_experts)
    weights_TE = top_k_weights.new_zeros(num_tokens, num_experts)
    weights_TE = weights_TE.scatter(1, top_k_index, top_k_weights).to(hidden_states.dtype)
    gate_up = module.gate_up_proj
    both = torch.nn.functional.linear(hidden_states, gate_up.reshape(-1, gate_up.shape[-1]))
    gate, up = both.view(num_tokens, num_experts, -1).chunk(2, dim=-1)
    inner_TEI = module.act_fn(gate) * up * weights_TE[:, :, None]
    down_EIH = module.down_proj.transpose(1, 2)
    answer: torch.Tensor = inner_TEI.reshape(num_tokens, -1) @ down_EIH.reshape(
        -1, down_EIH.shape[-1]
    )
    return answer


def use_frozen_experts(model: Any) -> bool:
    """Let a model on a CPU compute its frozen experts so, if enough of them are active.

    `down_proj` keeps its values and its shape, but lies in memory with I before H, so that
    reshaping it copies nothing.
    """
    config = model.config
    top_k = int(getattr(config, "num_experts_per_tok", None) or 0)
    modules = [module for module in model.modules() if _is_plain(module)]
    is_possible = bool(modules) and modules[0].gate_up_proj.device.type == "cpu"
    if not is_possible or top_k < _LEAST_SHARE * modules[0].num_experts:
        return False
    for module in modules:
        down = module.down_proj.data
        module.down_proj.data = down.transpose(1, 2).contiguous().transpose(1, 2)
    config._experts_implementation = NAME  # noqa: SLF001 - its setter is there for some classes
    return True


def _is_plain(module: Any) -> bool:
    if getattr(module, "gate_up_proj", None) is None or not hasattr(module, "num_experts"):
        return False
    return not getattr(module, "has_bias", False) and not getattr(module, "is_transposed", False)


ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
