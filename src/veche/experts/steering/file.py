"""Keep a steering in one safetensors file."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from veche.core.errors import CheckpointError, InputError, MissingExtraError
from veche.core.files import atomic_writer
from veche.experts.recording import Source
from veche.experts.steering.basis import Finding, SteeringBasis

_FORMAT = "veche-steering-1"
_TENSOR = "basis"
_MAX_BYTES = 64 << 20


class _Note(BaseModel):
    """What the file says besides the basis."""

    model_config = ConfigDict(extra="forbid", strict=True)

    layers: list[NonNegativeInt]
    model: str
    identity: str
    has_equal_weights: bool
    towards: str
    away_from: str
    num_for: NonNegativeInt
    num_against: NonNegativeInt
    num_significant: NonNegativeInt
    seed: int
    used_texts: list[str]


def save_steering(path: Path, found: SteeringBasis) -> None:
    """Write a steering to `path`, atomically.

    The tensor `basis` is float32 [L, E]; the metadata's `note` is a JSON object of all else.

    Raises:
        MissingExtraError: safetensors is not installed.
        DiskError: the disk refuses it.
    """
    finding = found.finding
    note = _Note(
        layers=list(found.layers),
        model=found.source.model,
        identity=found.source.identity,
        has_equal_weights=found.source.has_equal_weights,
        towards=finding.towards,
        away_from=finding.away_from,
        num_for=finding.num_for,
        num_against=finding.num_against,
        num_significant=finding.num_significant,
        seed=finding.seed,
        used_texts=list(finding.used_texts),
    )
    metadata = {"format": _FORMAT, "note": note.model_dump_json()}
    tensors = {_TENSOR: np.ascontiguousarray(found.basis, np.float32)}
    raw = _safetensors().save(tensors, metadata=metadata)
    with atomic_writer(path) as file:
        file.write(raw)


def load_steering(path: Path) -> SteeringBasis:
    """Read what `save_steering` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
        MissingExtraError: safetensors is not installed.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist", hint="make one: veche steer find MODEL --for A --against B"
        )
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} is longer than {_MAX_BYTES >> 20} MiB: it is no steering")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path} is not a steering of veche")
            note = _Note.model_validate_json(metadata["note"])
            basis = file.get_tensor(_TENSOR)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "note"
        raise _damaged(path, f"{where}: {first['msg']}") from error
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
        # numpy lacks types that safetensors has: bfloat16 is a TypeError, float8 the other one
        raise _damaged(path, str(error).splitlines()[0]) from error
    if basis.dtype != np.float32:
        raise _damaged(path, f"its basis is {basis.dtype}")
    return _checked(path, note, basis)


def _checked(path: Path, note: _Note, basis: Any) -> SteeringBasis:
    try:
        return SteeringBasis(
            basis=basis,
            source=Source(
                model=note.model,
                identity=note.identity,
                layers=tuple(note.layers),
                has_equal_weights=note.has_equal_weights,
            ),
            finding=Finding(
                towards=note.towards,
                away_from=note.away_from,
                num_for=note.num_for,
                num_against=note.num_against,
                num_significant=note.num_significant,
                seed=note.seed,
                used_texts=tuple(note.used_texts),
            ),
        )
    except InputError as error:
        raise _damaged(path, error.message) from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {reason}", hint="find the steering again: veche steer find"
    )


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "model") from error
    return safetensors.numpy
