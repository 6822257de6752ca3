r"""Train routers whose weights are equal, so that their softmax has no gradient of use.

Legend: N positions, E experts, k active ones, H hidden size, I width of an expert. Imports torch.

A carved model's chosen experts all weigh 1/k: only the ranking of the logits counts, and it is
piecewise constant. So the forward pass uses the hard choice m ∈ {0, 1}, and the backward pass the
derivative of a soft one: w = (m + p − sg(p)) / k with p = σ((s − t)/τ), t midway between the scores
ranked k and k + 1, sg stopping gradients (Bengio et al., arXiv:1308.3432). An expert that is not
chosen has gradients too, since the choice would change what it gives; so all are computed.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

SCALE = 2.0**20
"""What routers are multiplied by while they are trained: a carved router's logits have a standard
deviation of 1e-6, and a power of two moves no bit of them."""
TEMPERATURE = 0.25
"""τ: of logits whose standard deviation is about 1."""
_EXPERTS = "veche_every_expert"


class SoftChoice:
    """Stands in for a router's forward while it is trained; every expert is listed, in order."""

    def __init__(self, gate: Any) -> None:
        self._gate = gate

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits [N, E], weights [N, E], experts [N, E]."""
        gate = self._gate
        logits_NE = torch.nn.functional.linear(hidden.reshape(-1, hidden.shape[-1]), gate.weight)
        weights_NE = soft_choice(logits_NE, gate.top_k) / gate.top_k
        experts_NE = torch.arange(logits_NE.shape[1], device=logits_NE.device)
        return logits_NE, weights_NE, experts_NE.expand_as(logits_NE)


def soft_choice(logits_NE: Tensor, top_k: int) -> Tensor:
    """Return 1 for the k chosen experts and 0 for the others; the gradient is that of p.

    The choice is the one that the model itself makes of the logits over SCALE, rounding included.
    """
    scores_NE = logits_NE.to(torch.promote_types(logits_NE.dtype, torch.float32))
    shares_NE = (scores_NE.detach() / SCALE).softmax(-1)
    chosen_NE = torch.zeros_like(scores_NE).scatter(1, shares_NE.topk(top_k, dim=1).indices, 1)
    if top_k >= logits_NE.shape[1]:
        return chosen_NE
    ranked = scores_NE.topk(top_k + 1, dim=1).values
    threshold_N1 = ranked[:, -2:].mean(dim=1, keepdim=True)
    soft_NE = torch.sigmoid((scores_NE - threshold_N1) / TEMPERATURE)
    return chosen_NE + soft_NE - soft_NE.detach()


def every_expert(module: Any, hidden_NH: Tensor, _: Tensor, weights_NE: Tensor) -> Tensor:
    """Return Σ_e w_ne · down_e(act(gate_e x_n) ⊙ up_e x_n), [N, H]; an ExpertsInterface function.

    Args:
        module: the layer's experts.
        hidden_NH: their input.
        weights_NE: of every expert, in order.
    """
    gate_up, down = module.gate_up_proj, module.down_proj
    num_experts, _, hidden_size = gate_up.shape
    both = torch.nn.functional.linear(hidden_NH, gate_up.reshape(-1, hidden_size))
    gate, up = both.view(len(hidden_NH), num_experts, -1).chunk(2, dim=-1)
    inner_NEI = module.act_fn(gate) * up * weights_NE.to(both.dtype)[:, :, None]
    answer_NH: Tensor = inner_NEI.flatten(1) @ down.transpose(1, 2).reshape(-1, hidden_size)
    return answer_NH


def open_routers(model: Any) -> list[Any]:
    """Let a model's routers be trained so, and return them; `close_routers` undoes it."""
    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    with torch.no_grad():
        for gate in gates:
            gate.weight.mul_(SCALE)
            gate.forward = SoftChoice(gate)
    model.config._experts_implementation = _EXPERTS  # noqa: SLF001 - its setter is not everywhere
    return gates


def close_routers(model: Any, gates: list[Any], experts_implementation: str) -> None:
    """Give the routers their own scale and forward back."""
    with torch.no_grad():
        for gate in gates:
            gate.weight.div_(SCALE)
            del gate.forward
    model.config._experts_implementation = experts_implementation  # noqa: SLF001


ALL_EXPERTS_FUNCTIONS.register(_EXPERTS, every_expert)
