"""The optimisers that an adapter can be trained with."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from veche.roles.training.adapter import whole
from veche.roles.training.settings import ChosenSettings, OptimizerName


def _adamw(model: Any, settings: ChosenSettings) -> torch.optim.Optimizer:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
    )


def _loft(model: Any, settings: ChosenSettings) -> torch.optim.Optimizer:
    from veche.roles.loft.optimizer import LoFT
    from veche.roles.loft.pairs import parameter_groups

    return LoFT(
        parameter_groups(model),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
    )


OPTIMIZERS: dict[OptimizerName, Callable[[Any, ChosenSettings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "loft": _loft,
}


def shorten_gradients(model: Any, settings: ChosenSettings) -> bool:
    """Scale gradients down to the longest norm that is allowed; return whether all are finite.

    LoFT does so by itself, in the norm of the full gradient.
    """
    if settings.optimizer == "loft":
        return True
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm, foreach=False)
    return bool(torch.isfinite(whole(norm)))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Let the next step have this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def load_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Give an optimiser a state_dict of whole tensors, where processes may hold parts of them."""
    own = optimizer.state_dict()["param_groups"]
    numbers = [number for group in own for number in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    by_number = dict(zip(numbers, weights, strict=True))
    shared = {
        number: {name: _like(value, by_number[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shared})


def _like(value: Any, weight: Any) -> Any:
    """Return a tensor divided among processes as a weight is; counters are everyone's."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
