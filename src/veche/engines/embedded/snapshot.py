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
from veche.core.json_text import parse_json
from veche.engines.embedded.kv_cache import Segment, joined

_FORMAT = "veche-trunk-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model's trunks are like: L layers, K key-value heads, D width of a head.

    Attributes:
        num_layers: L.
        num_heads: K.
        head_dim: D.
        vocab_size: token ids are below it.
        dtype: of keys and values.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    vocab_size: int
    dtype: torch.dtype


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


def read_snapshot(path: Path, *, model: str, shape: Shape, device: torch.device) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Args:
        path: the file.
        model: the content hash that it must be of.
        shape: of the model's trunks.
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
            ids = _token_ids(file.get_tensor("token_ids"), shape.vocab_size)
            pending = int(metadata["pending"])
            num_layers = shape.num_layers if len(ids) > pending else 0
            layers = tuple(
                (file.get_tensor(f"keys.{layer}"), file.get_tensor(f"values.{layer}"))
                for layer in range(num_layers)
            )
            snapshot = Snapshot(
                model=model,
                lineage=_lineage(metadata["lineage"]),
                turn=metadata["turn"],
                pending=pending,
                token_ids=ids,
                segment=Segment(layers=layers, num_tokens=layers[0][0].shape[2] if layers else 0),
            )
    except (SafetensorError, OSError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", hint="save the trunk again") from error
    _require_whole(path, snapshot, shape)
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


def _token_ids(ids: torch.Tensor, vocab_size: int) -> tuple[int, ...]:
    if ids.dtype != torch.int64 or ids.ndim != 1:
        raise ValueError("its token ids are no list of whole numbers")
    if not all(0 <= token_id < vocab_size for token_id in ids.tolist()):
        raise ValueError(f"a token id is not in 0..{vocab_size - 1}")
    return tuple(ids.tolist())


def _lineage(text: str) -> tuple[str, ...]:
    found = parse_json(text.encode())
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError("its lineage is no list of names")
    return tuple(found)


def _require_whole(path: Path, snapshot: Snapshot, shape: Shape) -> None:
    segment = snapshot.segment
    wanted = (1, shape.num_heads, segment.num_tokens, shape.head_dim)
    is_whole = (
        all(
            tensor.shape == wanted and tensor.dtype == shape.dtype
            for pair in segment.layers
            for tensor in pair
        )
        and snapshot.turn in ("user", "answer", "text")
        and len(snapshot.token_ids) > 0
        and 0 <= snapshot.pending <= len(snapshot.token_ids)
        and segment.num_tokens + snapshot.pending == len(snapshot.token_ids)
    )
    if not is_whole:
        raise CheckpointError(f"{path} contradicts itself", hint="save the trunk again")
