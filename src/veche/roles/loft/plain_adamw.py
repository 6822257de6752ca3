"""AdamW for parameters that are no factors, with float32 moments whatever their type."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from veche.roles.loft.pair_step import FIRST, SECOND, STEP, compute_dtype


def new_plain_state(param: Tensor) -> dict[str, Tensor]:
    """Return the state of a parameter that has seen no gradient."""
    zeros = torch.zeros_like(param, dtype=compute_dtype(param), memory_format=torch.preserve_format)
    return {STEP: torch.zeros(()), FIRST: zeros, SECOND: zeros.clone()}


def plain_adamw(
    params: list[Tensor],
    states: list[dict[str, Tensor]],
    group: dict[str, Any],
    *,
    gradient_scale: float,
) -> None:
    """Make torch's own AdamW step for parameters that have a gradient.

    Args:
        params: they are changed.
        states: theirs, changed too.
        group: dials.
        gradient_scale: gradients are multiplied by it.
    """
    values = [param.to(compute_dtype(param)) for param in params]
    grads = [param.grad.to(compute_dtype(param)) for param in params if param.grad is not None]
    if gradient_scale != 1:
        grads = list(torch._foreach_mul(grads, gradient_scale))  # noqa: SLF001
    adamw(
        values,
        grads,
        [state[FIRST] for state in states],
        [state[SECOND] for state in states],
        [],
        [state[STEP] for state in states],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=float(group["lr"]),
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )
    for param, value in zip(params, values, strict=True):
        if value is not param:
            param.copy_(value)
