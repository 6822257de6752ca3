"""Keep a reader of intents in a folder: intents.json says what it is, intents.safetensors holds it.

Shapes: V n-grams, K intents, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt

from veche.core.errors import InputError
from veche.roles.intent.reader import IntentReader, Scope
from veche.roles.intent.regression import LinearScores
from veche.roles.intent.wording import NGrams, Wording
from veche.roles.probe_folder import ProbeFolder

_FORMAT: Literal["veche-intents-1"] = "veche-intents-1"
_TENSORS: dict[str, type[np.generic]] = {
    "states/weight": np.float32,
    "states/bias": np.float32,
    "words/weight": np.float16,
    "words/bias": np.float32,
    "words/idf": np.float32,
    "words/n_grams": np.uint8,
}
_BREAK = "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedIntents:
    """A reader of intents, and where it comes from.

    Attributes:
        base_hash: content hash of the checkpoint whose states it reads.
        reader: what was trained.
        record: counts and figures of its training, as JSON values.
    """

    base_hash: str
    reader: IntentReader
    record: Mapping[str, Any] = field(default_factory=dict)


class _Scope(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    slope: float
    bias: float


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal["veche-intents-1"]
    base_hash: str
    intents: list[str] = Field(min_length=2)
    layers: list[NonNegativeInt] = Field(min_length=1)
    shares: list[float] = Field(min_length=2, max_length=2)
    scope: _Scope
    record: dict[str, JsonValue]


INTENTS_FOLDER = ProbeFolder(
    name="intents",
    format=_FORMAT,
    note=_Note,
    hint="train it again: veche role train q-intent MODEL --data FILE --part probe",
)


def save_intents(folder: Path, trained: TrainedIntents) -> None:
    """Write a reader's two files, together.

    Raises:
        MissingExtraError: safetensors is not installed.
        DiskError: the disk refuses it.
    """
    reader = trained.reader
    note = _Note(
        format=_FORMAT,
        base_hash=trained.base_hash,
        intents=list(reader.intents),
        layers=list(reader.layers),
        shares=list(reader.shares),
        scope=_Scope(slope=reader.scope.slope, bias=reader.scope.bias),
        record=dict(trained.record),
    )
    names = _BREAK.join(reader.words.n_grams.names).encode()
    tensors: dict[str, NDArray[Any]] = {
        "states/weight": reader.states.weight,
        "states/bias": reader.states.bias,
        "words/weight": reader.words.weight,
        "words/bias": reader.words.bias,
        "words/idf": reader.words.n_grams.idf,
        "words/n_grams": np.frombuffer(names, np.uint8),
    }
    INTENTS_FOLDER.save(folder, note, tensors)


def load_intents(folder: Path) -> TrainedIntents:
    """Read what `save_intents` wrote.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
        MissingExtraError: safetensors is not installed.
    """
    note, tensors = INTENTS_FOLDER.load(folder)
    if (reason := _misfit(tensors)) is not None:
        raise INTENTS_FOLDER.damaged(folder, reason)
    try:
        names = tuple(bytes(tensors["words/n_grams"]).decode().split(_BREAK))
        reader = IntentReader(
            intents=tuple(note.intents),
            layers=tuple(note.layers),
            states=LinearScores(weight=tensors["states/weight"], bias=tensors["states/bias"]),
            words=Wording(
                n_grams=NGrams(names=names, idf=tensors["words/idf"]),
                weight=tensors["words/weight"],
                bias=tensors["words/bias"],
            ),
            shares=(note.shares[0], note.shares[1]),
            scope=Scope(slope=note.scope.slope, bias=note.scope.bias),
        )
    except UnicodeDecodeError as error:
        raise INTENTS_FOLDER.damaged(folder, "its n-grams are not UTF-8") from error
    except InputError as error:
        raise INTENTS_FOLDER.damaged(folder, error.message) from error
    return TrainedIntents(base_hash=note.base_hash, reader=reader, record=note.record)


def holds_intents(folder: Path) -> bool:
    """Whether a folder holds a reader of intents, sound or not."""
    return INTENTS_FOLDER.note_path(folder).is_file()


def _misfit(found: Mapping[str, NDArray[Any]]) -> str | None:
    """Return what is wrong with names, types and dimensions, if anything is."""
    if set(found) != set(_TENSORS):
        return f"it holds {', '.join(sorted(found)) or 'nothing'}"
    for name, dtype in _TENSORS.items():
        if found[name].dtype != dtype or found[name].ndim != (2 if "weight" in name else 1):
            return f"{name} is {found[name].dtype} {found[name].shape}"
    return None
