"""Keep trained probes in a folder: probe.json says what they are, probe.safetensors holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt

from veche.core.errors import InputError
from veche.roles.probe.probe import Probe
from veche.roles.probe.stack import TOGETHER, Stack
from veche.roles.probe_folder import ProbeFolder

_FORMAT: Literal["veche-probe-1"] = "veche-probe-1"
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
    layers: list[NonNegativeInt] = Field(min_length=1)
    stacks: dict[Reads, _Stack] = Field(min_length=1)
    record: dict[str, JsonValue]


PROBE_FOLDER = ProbeFolder(
    name="probe",
    format=_FORMAT,
    note=_Note,
    hint="train the probe again: veche role train recursia MODEL --data FILE --part probe",
)


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
            tensors[f"{reads}/{name}/weight"] = probe.weight.astype(np.float32)
            tensors[f"{reads}/{name}/bias"] = probe.bias.astype(np.float32)
    PROBE_FOLDER.save(folder, note, tensors)


def load_probes(folder: Path) -> TrainedProbes:
    """Read what `save_probes` wrote.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
        MissingExtraError: safetensors is not installed.
    """
    note, tensors = PROBE_FOLDER.load(folder)
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise PROBE_FOLDER.damaged(folder, f"{name} is {tensor.dtype}")
    try:
        stacks = {reads: _stack(tensors, reads, told) for reads, told in note.stacks.items()}
    except KeyError as error:
        raise PROBE_FOLDER.damaged(folder, f"it has no {error.args[0]}") from error
    except InputError as error:
        raise PROBE_FOLDER.damaged(folder, error.message) from error
    return TrainedProbes(
        base_hash=note.base_hash,
        layers=tuple(note.layers),
        stacks=stacks,
        record=note.record,
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
