"""What a parameter group of LoFT must be."""

from typing import Any

from torch import Tensor

PAIRS_EPS = 1e-4
"""As the authors of LoFT have it."""
PLAIN_EPS = 1e-8
"""As torch.optim.AdamW has it."""


def problem_of(group: dict[str, Any]) -> str:
    """Return what is wrong with a group, or nothing."""
    if group.get("kind") not in ("pairs", "plain"):
        return (
            f"a group of LoFT is of kind 'pairs' or 'plain', not {group.get('kind')!r}; "
            "veche.roles.loft.pairs.parameter_groups(model) makes them"
        )
    return _problem_of_dials(group) or _problem_of_params(group)


def _problem_of_dials(group: dict[str, Any]) -> str:
    if not float(group["lr"]) >= 0:
        return f"lr is {group['lr']}, and must be 0 or more"
    if not group["eps"] > 0:
        return f"eps is {group['eps']}, and must be above 0"
    if not all(0 <= beta < 1 for beta in group["betas"]):
        return f"betas are {group['betas']}, and must be from 0 up to, not including, 1"
    if not group["weight_decay"] >= 0:
        return f"weight_decay is {group['weight_decay']}, and must be 0 or more"
    return ""


def _problem_of_params(group: dict[str, Any]) -> str:
    params: list[Tensor] = group["params"]
    if not all(param.is_floating_point() for param in params):
        return "LoFT trains real parameters only"
    if group["kind"] == "plain":
        return ""
    if len(params) % 2:
        return f"a group of pairs has A, B, A, B, …, not {len(params)} parameters"
    for a, b in zip(params[::2], params[1::2], strict=True):
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            return f"{shapes} are no pair A [r, n], B [m, r]"
        if a.device != b.device or a.dtype != b.dtype:
            return f"A and B of a pair {shapes} are of different types, or in different places"
    return ""
