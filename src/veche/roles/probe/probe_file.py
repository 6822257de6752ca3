"""Keep trained probes in a folder: probe.json says what they are, probe.safetensors holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, ValidationError

from veche.core.errors import CheckpointError, InputError, MissingExtraError, UnsupportedError
from veche.core.files import read_json_object, write_together
from veche.core.json_text import json_text
from veche.engines.protocol import Engine, local
from veche.roles.probe.probe import Probe
from veche.roles.probe.stack import TOGETHER, Stack

NOTE_NAME = "probe.json"
WEIGHTS_NAME = "probe.safetensors"
_FORMAT: Literal["veche-probe-1"] = "veche-probe-1"
_MAX_BYTES = 1 << 30
_TOP = "top"

Reads = Literal["answer", "step"]
"""What a stack scores: a whole answer (right?), or a step (the first wrong one?)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedProbes:
    """What an observer measures with.

    Attributes:
        base_hash: content hash of the checkpoint whose states they read.
        layers: whose states they read.
        stacks: by what they score.
        record: settings, metrics and baselines, as JSON values.
    """

    base_hash: str
    layers: tuple[int, ...]
    stacks: Mapping[Reads, Stack]
    record: Mapping[str, Any] = field(default_factory=dict)


class _Stack(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    labels: list[str] = Field(min_length=2)
    blocks: dict[str, NonNegativeInt]
    probes: list[str]


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["veche-probe-1"]
    base_hash: str
    layers: list[NonNegativeInt]
    stacks: dict[Reads, _Stack] = Field(min_length=1)
    record: dict[str, JsonValue]


def save_probes(folder: Path, probes: TrainedProbes) -> None:
    """Write a probe's two files, together.

    Raises:
        MissingExtraError: safetensors is not installed.
        DiskError: the disk refuses it.
    """
    note = _Note(
        format=_FORMAT,
        base_hash=probes.base_hash,
        layers=list(probes.layers),
        stacks={
            reads: _Stack(
                labels=list(stack.labels), blocks=dict(stack.blocks), probes=list(stack.probes)
            )
            for reads, stack in probes.stacks.items()
        },
        record=dict(probes.record),
    )
    tensors: dict[str, NDArray[np.float32]] = {}
    for reads, stack in probes.stacks.items():
        for name, probe in {**stack.probes, _TOP: stack.top}.items():
            tensors[f"{reads}/{name}/weight"] = np.ascontiguousarray(probe.weight, np.float32)
            tensors[f"{reads}/{name}/bias"] = np.ascontiguousarray(probe.bias, np.float32)
    raw = _safetensors().save(tensors, metadata={"format": _FORMAT})
    write_together(
        {folder / WEIGHTS_NAME: raw, folder / NOTE_NAME: json_text(note.model_dump()) + "\n"}
    )


def load_probes(folder: Path) -> TrainedProbes:
    """Read what `save_probes` wrote.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
        MissingExtraError: safetensors is not installed.
    """
    path = folder / NOTE_NAME
    try:
        note = _Note.model_validate(read_json_object(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise _damaged(path, f"{where}: {first['msg']}") from error
    tensors = _tensors(folder / WEIGHTS_NAME)
    try:
        stacks = {reads: _stack(tensors, reads, told) for reads, told in note.stacks.items()}
    except KeyError as error:
        raise _damaged(folder / WEIGHTS_NAME, f"it has no {error.args[0]}") from error
    except InputError as error:
        raise _damaged(folder / WEIGHTS_NAME, error.message) from error
    return TrainedProbes(
        base_hash=note.base_hash,
        layers=tuple(note.layers),
        stacks=stacks,
        record=note.record,
    )


def require_base(probes: TrainedProbes, engine: Engine) -> None:
    """Refuse a probe that reads another model's states.

    Raises:
        UnsupportedError: the engine runs another checkpoint, or can't tell which.
    """
    found = local(engine).base_hash
    if found != probes.base_hash:
        raise UnsupportedError(
            f"the probe was trained on the model {probes.base_hash[:12]}…, and {engine.name} is "
            f"{found[:12]}…: its states mean something else",
            hint="train one for this model: veche role train recursia MODEL --data FILE --part "
            "probe",
        )


def _stack(tensors: Mapping[str, NDArray[np.float32]], reads: str, told: _Stack) -> Stack:
    labels = tuple(told.labels)

    def probe(name: str) -> Probe:
        """Return one of its probes."""
        at = f"{reads}/{name}"
        return Probe(labels=labels, weight=tensors[f"{at}/weight"], bias=tensors[f"{at}/bias"])

    probes = {name: probe(name) for name in told.probes}
    for read, found in probes.items():
        names = read.split(TOGETHER)
        if unknown := set(names) - set(told.blocks):
            raise InputError(f"a probe reads {min(unknown)!r}, a block that is not there")
        width = sum(told.blocks[name] for name in names)
        if found.weight.shape[1] != width:
            raise InputError(f"the probe of {read!r} does not read {width} features")
    top, width = probe(_TOP), sum(len(found.bias) for found in probes.values())
    if top.weight.shape[1] != width:
        raise InputError(f"the top reads {top.weight.shape[1]} logits, not {width}")
    return Stack(blocks=dict(told.blocks), probes=probes, top=top)


def _tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", hint="train the probe again")
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} is longer than {_MAX_BYTES >> 30} GiB: it is no probe")
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise CheckpointError(f"{path} is not a probe of veche")
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    for name, tensor in found.items():
        if tensor.dtype != np.float32:
            raise _damaged(path, f"{name} is {tensor.dtype}")
    return found


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {reason}",
        hint="train the probe again: veche role train recursia MODEL --data FILE --part probe",
    )


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "probe") from error
    return safetensors.numpy
