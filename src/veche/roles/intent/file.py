"""Keep a reader of intents in a folder: intents.json says what it is, intents.safetensors holds it.

Shapes: V n-grams, K intents, F features.
"""

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
from veche.roles.intent.reader import IntentReader, Scope
from veche.roles.intent.regression import LinearScores
from veche.roles.intent.wording import NGrams, Wording

NOTE_NAME = "intents.json"
WEIGHTS_NAME = "intents.safetensors"
_FORMAT: Literal["veche-intents-1"] = "veche-intents-1"
_MAX_BYTES = 1 << 30
_TRAIN = "train it again: veche role train q-intent MODEL --data FILE --part probe"
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
    tensors = {
        "states/weight": reader.states.weight,
        "states/bias": reader.states.bias,
        "words/weight": reader.words.weight,
        "words/bias": reader.words.bias,
        "words/idf": reader.words.n_grams.idf,
        "words/n_grams": np.frombuffer(names, np.uint8),
    }
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    raw = _safetensors().save(whole, metadata={"format": _FORMAT})
    write_together(
        {folder / WEIGHTS_NAME: raw, folder / NOTE_NAME: json_text(note.model_dump()) + "\n"}
    )


def load_intents(folder: Path) -> TrainedIntents:
    """Read what `save_intents` wrote.

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
        raise _damaged(folder / WEIGHTS_NAME, "its n-grams are not UTF-8") from error
    except InputError as error:
        raise _damaged(folder / WEIGHTS_NAME, error.message) from error
    return TrainedIntents(base_hash=note.base_hash, reader=reader, record=note.record)


def holds_intents(folder: Path) -> bool:
    """Whether a folder holds a reader of intents, sound or not."""
    return (folder / NOTE_NAME).is_file()


def require_base(trained: TrainedIntents, engine: Engine) -> None:
    """Refuse a reader that knows another model's states.

    Raises:
        UnsupportedError: the engine runs another checkpoint, or can't tell which.
    """
    found = local(engine).base_hash
    if found != trained.base_hash:
        raise UnsupportedError(
            f"the reader was trained on the model {trained.base_hash[:12]}…, and {engine.name} is "
            f"{found[:12]}…: its states mean something else",
            hint=_TRAIN.replace("it again", "one for this model"),
        )


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", hint=_TRAIN)
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} is longer than {_MAX_BYTES >> 30} GiB: it is no reader")
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    if set(found) != set(_TENSORS):
        raise _damaged(path, f"it holds {', '.join(sorted(found)) or 'nothing'}")
    for name, dtype in _TENSORS.items():
        if found[name].dtype != dtype or found[name].ndim != (2 if "weight" in name else 1):
            raise _damaged(path, f"{name} is {found[name].dtype} {found[name].shape}")
    return found


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {reason}", hint=_TRAIN)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "probe") from error
    return safetensors.numpy
