"""Keep routed tokens on disk: one file for a run, a folder of such files for a recording.

Shapes: T tokens, L layers that route, k active experts a token, E experts.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.core.errors import CheckpointError, MissingExtraError
from veche.core.files import atomic_writer
from veche.core.json_text import parse_json
from veche.engines.protocol import Routing
from veche.experts.recording import Record, Recording, Source, joined, recorded
from veche.experts.token_classes import CLASSES

FILE_NAME = "routing.safetensors"
SHARD_GLOB = "routing-*.safetensors"
_FORMAT = "veche-routing-2"
_FIRST_FORMAT = "veche-routing-1"
_OPTIONAL = ("token_ids", "token_classes", "weights", "router_logits")
_TYPES = {
    "expert_ids": (np.uint8, np.uint16),
    "token_ids": (np.uint32,),
    "token_classes": (np.uint8,),
    "weights": (np.float16,),
    "router_logits": (np.float16,),
}


def shard_path(folder: Path, index: int) -> Path:
    """Return the name of a recording's n-th file."""
    return folder / f"routing-{index:05d}.safetensors"


def save_recording(path: Path, recording: Recording) -> None:
    """Write routed tokens to one file, atomically.

    Tensors are `expert_ids` (uint8, or uint16 where an id needs it) and, of what was kept,
    `token_ids`, `token_classes`, `weights`, `router_logits`; the metadata's `recording` is a JSON
    text of the rest.
    """
    numpy_format = _safetensors()
    tensors = {"expert_ids": np.ascontiguousarray(recording.expert_ids)}
    for name in _OPTIONAL:
        if (array := getattr(recording, name)) is not None:
            tensors[name] = np.ascontiguousarray(array, _TYPES[name][0])
    about = {
        "num_experts": recording.num_experts,
        "source": None if recording.source is None else asdict(recording.source),
        "records": [_listed(record) for record in recording.records],
    }
    metadata = {
        "format": _FORMAT,
        "recording": json.dumps(about, ensure_ascii=False, separators=(",", ":")),
    }
    with atomic_writer(path) as file:
        file.write(numpy_format.save(tensors, metadata=metadata))


def read_recording(path: Path) -> Recording:
    """Read a recording's folder, a run's folder, or one file of routed tokens.

    Raises:
        CheckpointError: a file is missing, damaged, of another kind or of another model than the
            first one.
    """
    _safetensors()
    files = files_of(path)
    if not files:
        raise CheckpointError(
            f"{path} holds no routed tokens",
            hint="run `veche experts record MODEL INPUT --out FOLDER`, or "
            "`veche ask MODEL QUESTION --out FOLDER`",
        )
    parts = [_read_file(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.source != parts[0].source:
            raise CheckpointError(f"{file} was recorded from another model than {files[0]}")
    try:
        return joined(parts)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def files_of(path: Path) -> list[Path]:
    """Return the files of routed tokens that a path stands for, in order."""
    if not path.is_dir():
        return [path]
    single = path / FILE_NAME
    return ([single] if single.is_file() else []) + sorted(path.glob(SHARD_GLOB))


def records_in(file: Path) -> tuple[Record, ...]:
    """Return the records of one file, without reading its tokens.

    Raises:
        CheckpointError: as of `read_recording`.
    """
    with _opened(file) as tensors:
        return tuple(_record(record) for record in _about(file, tensors).records)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Record(_Strict):
    d: str
    v: str
    n: int = Field(ge=0)
    l: dict[str, str] = Field(default_factory=dict)  # noqa: E741


class _Source(_Strict):
    model: str
    identity: str = ""
    layers: tuple[int, ...] = ()
    has_equal_weights: bool = False


class _About(_Strict):
    num_experts: int = Field(ge=0, le=65_535)
    source: _Source | None = None
    records: list[_Record]


def _listed(record: Record) -> dict[str, Any]:
    """Return a record in few bytes: a store has one for every few tokens."""
    labels = {"l": dict(record.labels)} if record.labels else {}
    return {"d": record.document, "v": record.voice, "n": record.num_tokens, **labels}


def _record(read: _Record) -> Record:
    return Record(document=read.d, voice=read.v, num_tokens=read.n, labels=read.l)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of tensors for a block in which whatever is damaged is a CheckpointError."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist",
            hint="run `veche ask MODEL QUESTION --out FOLDER` or `veche experts record` first",
        )
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(f"{path} is damaged: {reason}", hint="record it anew") from error


def _about(path: Path, tensors: Any) -> _About:
    metadata = tensors.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a routing file of veche")
    return _About.model_validate_json(metadata["recording"])


def _read_file(path: Path) -> Recording:
    with _opened(path) as tensors:
        if (tensors.metadata() or {}).get("format") == _FIRST_FORMAT:
            return _read_first_format(path, tensors)
        about = _about(path, tensors)
        present = set(tensors.keys())
        return _checked(
            path,
            Recording(
                records=tuple(_record(record) for record in about.records),
                num_experts=about.num_experts,
                source=None if about.source is None else Source(**about.source.model_dump()),
                expert_ids=tensors.get_tensor("expert_ids"),
                **{name: tensors.get_tensor(name) for name in _OPTIONAL if name in present},
            ),
        )


def _read_first_format(path: Path, tensors: Any) -> Recording:
    """Read what veche 0.1.0 wrote: two tensors a voice."""
    metadata = tensors.metadata()
    voices: list[str] = parse_json(metadata["voices"].encode())
    experts: list[int] = parse_json(metadata["num_experts"].encode())
    parts = []
    for index, (voice, num_experts) in enumerate(zip(voices, experts, strict=True)):
        ids = tensors.get_tensor(f"{index}.expert_ids")
        weights = tensors.get_tensor(f"{index}.weights")
        _require(path, ids.ndim == 3 and ids.shape == weights.shape)
        _require(path, ids.size == 0 or int(ids.max()) < num_experts)
        record = Record(document="run", voice=voice, num_tokens=len(ids))
        routing = Routing(expert_ids=ids, weights=weights, num_experts=num_experts)
        parts.append(recorded(routing, record))
    return joined(parts)


def _checked(path: Path, found: Recording) -> Recording:
    tokens, ids = sum(record.num_tokens for record in found.records), found.expert_ids
    _require(path, ids.ndim == 3 and len(ids) == tokens and (not tokens or ids.size > 0))
    _require(path, ids.size == 0 or int(ids.max()) <= found.num_experts)
    for name, types in _TYPES.items():
        array = getattr(found, name)
        _require(path, array is None or (array.dtype in types and len(array) == tokens))
    _require(path, found.weights is None or found.weights.shape == ids.shape)
    shape = (*ids.shape[:2], found.num_experts)
    _require(path, found.router_logits is None or found.router_logits.shape == shape)
    for one_a_token in (found.token_ids, found.token_classes):
        _require(path, one_a_token is None or one_a_token.ndim == 1)
    classes = found.token_classes
    _require(path, classes is None or int(classes.max(initial=0)) < len(CLASSES))
    _require(path, found.weights is None or bool(np.isfinite(found.weights).all()))
    layers = found.source.layers if found.source else ()
    _require(path, not layers or len(layers) == ids.shape[1])
    return found


def _require(path: Path, is_sound: bool) -> None:
    if not is_sound:
        raise CheckpointError(
            f"{path} is damaged: what it says contradicts itself", hint="record the routing anew"
        )


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "model") from error
    return safetensors.numpy
