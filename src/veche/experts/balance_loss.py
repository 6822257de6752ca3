"""The loss that keeps a router's load even, layer by layer, on logits.

Shapes: T tokens (of all sequences), E experts, k active experts a token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def load_balancing_loss(
    logits: Sequence[Tensor], top_k: int, *, is_real: Tensor | None = None
) -> Tensor:
    """Return the mean over layers of E · Σ_e f_e · P_e, a scalar with a gradient.

    f_e = (how many real tokens have expert e among their top k) / (k · T) and
    P_e = mean over real tokens of softmax(logits)_e; f is counted and has no gradient. Uniform
    routing gives 1. If every token is sent, with certainty, to the same k experts, it is E/k.

    Each layer has a loss of its own: pooled over layers, one layer's idle expert would hide
    another's busy one. With k = 1 it is eq. 4–6 of Switch Transformers, arXiv 2101.03961, without
    the coefficient α. Libraries that do not divide f by k return k times as much.

    Args:
        logits: of each layer [T, E] or [batch, sequence, E]; logits, never probabilities: a
            softmax of a softmax is nearly flat, and pushes at nothing.
        top_k: k.
        is_real: [T] or [batch, sequence], False at padding; None where there is none.

    Raises:
        ValueError: there is no layer, or shapes differ.
    """
    if not logits:
        raise ValueError("there is no layer to balance")
    losses = [_of_one_layer(of_layer, top_k, is_real) for of_layer in logits]
    # Layers may be on different devices; the loss is where the last of them is.
    return torch.stack([loss.to(losses[-1].device) for loss in losses]).mean()


def _of_one_layer(logits: Tensor, top_k: int, is_real: Tensor | None) -> Tensor:
    num_experts = logits.shape[-1]
    logits_TE = logits.reshape(-1, num_experts)
    if is_real is not None:
        is_real_T = is_real.reshape(-1).bool().to(logits_TE.device)
        if len(is_real_T) != len(logits_TE):
            raise ValueError(f"{len(is_real_T)} marks for {len(logits_TE)} tokens")
        # Taken out, not multiplied by 0: padding may hold NaN, and 0 · NaN is NaN.
        logits_TE = logits_TE[is_real_T]
    if not len(logits_TE):
        return logits_TE.sum()  # of nothing: 0, and still a part of the graph
    probs_TE = logits_TE.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    chosen_Tk = probs_TE.topk(top_k, dim=-1).indices
    load_E = torch.bincount(chosen_Tk.flatten(), minlength=num_experts) / chosen_Tk.numel()
    return num_experts * (load_E * probs_TE.mean(0)).sum()
