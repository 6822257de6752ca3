"""Keep a run's routing in one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from veche.core.errors import CheckpointError, MissingExtraError
from veche.core.files import atomic_writer
from veche.engines.protocol import Routing

FILE_NAME = "routing.safetensors"
_FORMAT = "veche-routing-1"


def save_routing(path: Path, routing: Mapping[str, Routing]) -> None:
    """Write each voice's expert ids and weights to `path`, atomically.

    Tensors `<n>.expert_ids` (uint16) and `<n>.weights` (float16) are those of the n-th voice of
    the metadata's JSON list `voices`; `num_experts` is metadata too.
    """
    numpy_format = _safetensors()
    tensors = {}
    for index, routed in enumerate(routing.values()):
        tensors[f"{index}.expert_ids"] = np.ascontiguousarray(routed.expert_ids, np.uint16)
        tensors[f"{index}.weights"] = np.ascontiguousarray(routed.weights, np.float16)
    metadata = {
        "format": _FORMAT,
        "voices": json.dumps(list(routing), ensure_ascii=False),
        "num_experts": json.dumps([routed.num_experts for routed in routing.values()]),
    }
    with atomic_writer(path) as file:
        file.write(numpy_format.save(tensors, metadata=metadata))


def load_routing(path: Path) -> dict[str, Routing]:
    """Read what `save_routing` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist", hint="run `veche ask MODEL QUESTION --out FOLDER` first"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path} is not a routing file of veche")
            voices = json.loads(metadata["voices"])
            experts = json.loads(metadata["num_experts"])
            return {
                voice: _checked(
                    path,
                    voice,
                    Routing(
                        expert_ids=file.get_tensor(f"{index}.expert_ids"),
                        weights=file.get_tensor(f"{index}.weights"),
                        num_experts=num_experts,
                    ),
                )
                for index, (voice, num_experts) in enumerate(zip(voices, experts, strict=True))
            }
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}", hint="run `veche ask` again to capture routing anew"
        ) from error


def _checked(path: Path, voice: str, routing: Routing) -> Routing:
    ids = routing.expert_ids
    is_sound = (
        ids.ndim == 3
        and ids.shape == routing.weights.shape
        and (ids.size == 0 or int(ids.max()) < routing.num_experts)
    )
    if not is_sound:
        raise CheckpointError(f"{path} is damaged: the routing of {voice!r} contradicts itself")
    return routing


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "model") from error
    return safetensors.numpy
