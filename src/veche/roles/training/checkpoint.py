"""What a training needs to go on: one safetensors file, whole or not there.

Nothing random is drawn after the start, and the examples of a step follow from seed and step: so
the weights, the optimiser's state and the number of steps are all there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from veche.roles.training.adapter import whole
from veche.roles.training.tensor_file import damaged, read_tensors, write_tensors

_FILE = "step-{step:07d}.safetensors"
_PATTERN = "step-*.safetensors"
_WEIGHTS, _STATE, _CURVE = "weights/", "optimizer/", "curve/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A training after `step` steps.

    Attributes:
        step: how many are done.
        weights: that are trained, by name.
        optimizer: its state_dict.
        curve: what was measured at each step done, by name; float64.
        seconds: that the steps took, over all runs; 0 where nobody counts them.
    """

    step: int
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    curve: Mapping[str, torch.Tensor]
    seconds: float = 0.0


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; those before it are removed once it is there.

    Raises:
        DiskError: the disk is full or refuses; the one before it stays.
    """
    tensors = {_WEIGHTS + name: tensor for name, tensor in checkpoint.weights.items()}
    tensors |= {_CURVE + name: tensor for name, tensor in checkpoint.curve.items()}
    plain = _without_tensors(dict(checkpoint.optimizer), _STATE, tensors)
    told = {"step": checkpoint.step, "seconds": checkpoint.seconds, "optimizer": plain}
    target = folder / _FILE.format(step=checkpoint.step)
    write_tensors(target, tensors, told)
    for older in folder.glob(_PATTERN):
        if older != target:
            older.unlink()


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last checkpoint in `folder`; None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    files = sorted(folder.glob(_PATTERN))
    if not files:
        return None
    hint = f"begin again: remove {folder}"
    tensors, told = read_tensors(files[-1], hint=hint)
    try:
        optimizer = _with_tensors(told["optimizer"], tensors)
        step, seconds = int(told["step"]), float(told["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(files[-1], error, hint) from error
    return Checkpoint(
        step=step,
        weights=_named(tensors, _WEIGHTS),
        optimizer=optimizer,
        curve=_named(tensors, _CURVE),
        seconds=seconds,
    )


def _named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _without_tensors(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` as JSON, in which tensors have moved to `tensors` and left their names.

    Keys that are numbers stay numbers, and tuples tuples: both are written as tagged lists.
    """
    if isinstance(value, torch.Tensor):
        tensors[path] = whole(value)
        return {"tensor": path}
    if isinstance(value, dict):
        return {
            "dict": [
                [key, _without_tensors(item, f"{path}{key}/", tensors)]
                for key, item in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        items = [_without_tensors(item, f"{path}{at}/", tensors) for at, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    return {"value": value}


def _with_tensors(told: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo `_without_tensors`."""
    ((kind, value),) = told.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _with_tensors(item, tensors) for key, item in value}
    if kind in ("list", "tuple"):
        items = [_with_tensors(item, tensors) for item in value]
        return tuple(items) if kind == "tuple" else items
    return value
