"""Keep a trunk in one safetensors file, so that it need not be prefilled again.

Tensors `keys.<layer>` and `values.<layer>` are [1, K, N, D] (K key-value heads, N tokens in the
cache, D width of a head), `token_ids` is [N + pending]. Metadata names the model's and the
adapters' content, so that nobody reads keys that another model has computed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from veche.core.errors import CheckpointError
from veche.core.files import atomic_writer
from veche.engines.embedded.kv_cache import Segment, joined

_FORMAT = "veche-trunk-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A trunk as it lies on disk.

    Attributes:
        model: content hash of the checkpoint, with what was changed of it on loading.
        lineage: content hashes of the adapters that computed a part of it.
        turn: whose words it ends in.
        pending: how many tokens at its end are not in the cache.
        token_ids: all tokens.
        segment: keys and values of all but the pending ones.
    """

    model: str
    lineage: tuple[str, ...]
    turn: str
    pending: int
    token_ids: tuple[int, ...]
    segment: Segment


def write_snapshot(path: Path, snapshot: Snapshot, segments: tuple[Segment, ...]) -> None:
    """Write a trunk's segments as one, atomically; `snapshot.segment` is not looked at."""
    whole = joined(segments)
    tensors = {"token_ids": torch.tensor(snapshot.token_ids, dtype=torch.int64)}
    for layer, (keys, values) in enumerate(whole.layers):
        tensors[f"keys.{layer}"] = keys.contiguous()
        tensors[f"values.{layer}"] = values.contiguous()
    metadata = {
        "format": _FORMAT,
        "model": snapshot.model,
        "lineage": json.dumps(snapshot.lineage),
        "turn": snapshot.turn,
        "pending": str(snapshot.pending),
    }
    with atomic_writer(path) as file:
        file.write(save(tensors, metadata=metadata))


def read_snapshot(path: Path, *, model: str, num_layers: int, device: torch.device) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Args:
        path: the file.
        model: the content hash that it must be of.
        num_layers: of the model.
        device: where the tensors go.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or of another model.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", hint="save a trunk there first")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            _require_ours(path, metadata, model)
            ids = file.get_tensor("token_ids")
            layers = tuple(
                (file.get_tensor(f"keys.{layer}"), file.get_tensor(f"values.{layer}"))
                for layer in range(num_layers)
            )
            snapshot = Snapshot(
                model=model,
                lineage=tuple(json.loads(metadata["lineage"])),
                turn=metadata["turn"],
                pending=int(metadata["pending"]),
                token_ids=tuple(ids.tolist()),
                segment=Segment(layers=layers, num_tokens=layers[0][0].shape[2]),
            )
    except (SafetensorError, OSError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", hint="save the trunk again") from error
    _require_whole(path, snapshot)
    return snapshot


def _require_ours(path: Path, metadata: dict[str, str], model: str) -> None:
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a trunk of veche")
    if metadata.get("model") != model:
        raise CheckpointError(
            f"{path} was computed by another model ({metadata.get('model', '?')[:12]}, this one is "
            f"{model[:12]}): its keys and values mean nothing here",
            hint="open it with the model that saved it, or prefill the conversation again",
        )


def _require_whole(path: Path, snapshot: Snapshot) -> None:
    shapes = {tensor.shape for pair in snapshot.segment.layers for tensor in pair}
    is_whole = (
        len(shapes) == 1
        and len(next(iter(shapes))) == 4
        and snapshot.turn in ("user", "answer", "text")
        and 0 <= snapshot.pending <= len(snapshot.token_ids)
        and snapshot.segment.num_tokens + snapshot.pending == len(snapshot.token_ids)
    )
    if not is_whole:
        raise CheckpointError(f"{path} contradicts itself", hint="save the trunk again")
