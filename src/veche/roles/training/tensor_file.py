"""Tensors in one safetensors file, with a note in JSON. This file imports torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from veche.core.errors import CheckpointError
from veche.core.files import atomic_writer

_METADATA = "veche"


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], note: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and a note, atomically.

    Raises:
        DiskError: the disk is full or refuses; what was there before stays.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_writer(path) as file:
        file.write(save(content, {_METADATA: json.dumps(dict(note or {}))}))


def read_tensors(path: Path, *, hint: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and the note.

    Args:
        path: the file.
        hint: what to do where it is damaged.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            note = dict(json.loads((file.metadata() or {})[_METADATA]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error, hint) from error
    return tensors, note


def damaged(path: Path, error: Exception, hint: str) -> CheckpointError:
    """Return the error of a file that does not hold what it should."""
    return CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}", hint=hint)
