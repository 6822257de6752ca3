"""Readings on disk, so that a text is read by a model once.

A cache is a folder of parts, `part-00000.safetensors` and on, each whole or not there. A tensor is
called `<hash of the text>/<field>`; which model read it, and how, is in the folder's name.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from veche.core.files import atomic_writer
from veche.roles.array_file import array_bytes, damaged, read_arrays
from veche.roles.data.example import Example
from veche.roles.probe.reading import StepReading
from veche.roles.probe.steps import steps_of

_FORMAT = "veche-observations-1"
_REQUIRED = ("values", "token_step", "hidden")
_OPTIONAL = ("counts", "router")


def text_hash(example: Example) -> str:
    """Return the hash of what is read of an example: the dialogue, and the last message's steps."""
    before, last = example.messages[:-1], example.messages[-1]
    turns = [[message.role, message.content] for message in before]
    told = json.dumps([turns, last.role, steps_of(example)], ensure_ascii=False)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


class ObservationCache:
    """The readings of one model under one setting.

    Args:
        folder: of all caches.
        identity: of the engine.
        layers: whose states were captured.

    Raises:
        CheckpointError: a part is damaged.
        MissingExtraError: safetensors is not installed.
    """

    def __init__(self, folder: Path, *, identity: str, layers: tuple[int, ...]) -> None:
        told = json.dumps([_FORMAT, identity, layers])
        self.folder = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
        self._known: dict[str, StepReading] = {}
        for part in sorted(self.folder.glob("part-*.safetensors")):
            self._known.update(_read(part))

    def get(self, key: str) -> StepReading | None:
        """Return a reading, if there is one."""
        return self._known.get(key)

    def add(self, readings: Mapping[str, StepReading]) -> None:
        """Write a part, atomically.

        Raises:
            DiskError: the disk refuses it.
        """
        tensors = {
            f"{key}/{name}": array
            for key, reading in readings.items()
            for name in (*_REQUIRED, *_OPTIONAL)
            if (array := getattr(reading, name)) is not None
        }
        taken = {int(part.stem.split("-")[1]) for part in self.folder.glob("part-*.safetensors")}
        path = self.folder / f"part-{max(taken, default=-1) + 1:05d}.safetensors"
        with atomic_writer(path) as file:
            file.write(array_bytes(tensors, format=_FORMAT))
        self._known.update(readings)


def _read(path: Path) -> dict[str, StepReading]:
    hint = f"remove it, and its texts are read again: rm {path}"
    fields: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in read_arrays(path, format=_FORMAT, hint=hint).items():
        key, _, field = name.partition("/")
        fields.setdefault(key, {})[field] = array
    try:
        return {key: _reading(found) for key, found in fields.items()}
    except KeyError as error:
        raise damaged(path, f"it has no {error.args[0]}", hint) from error


def _reading(found: Mapping[str, NDArray[Any]]) -> StepReading:
    needed = {name: found[name] for name in _REQUIRED}
    return StepReading(**needed, counts=found.get("counts"), router=found.get("router"))
