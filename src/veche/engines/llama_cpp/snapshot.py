"""A trunk on disk: llama.cpp's own state of its sequence, and what it belongs to."""

import ctypes
import json
import struct
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.header import read_header
from veche.checkpoint.writer import TensorOut, write_shard
from veche.core.errors import CheckpointError, EngineError, InputError
from veche.engines.llama_cpp.cells import Sequence
from veche.engines.llama_cpp.library import pointer_array
from veche.engines.llama_cpp.loading import LoadedGguf
from veche.engines.llama_cpp.trunk import LlamaCppTrunk, Turn

_FORMAT = "veche-llama-cpp-trunk-1"
_AGAIN = "open the trunk anew and save it again"


def save(path: Path, trunk: LlamaCppTrunk, sequence: Sequence, loaded: LoadedGguf) -> None:
    """Write a trunk as one safetensors file, atomically.

    Raises:
        EngineError: llama.cpp does not give its state.
        DiskError: the disk is full or refuses.
    """
    lib, context = loaded.lib, loaded.context
    state = np.empty(lib.llama_state_seq_get_size(context, sequence.number), np.uint8)
    target = pointer_array(state, ctypes.c_uint8)
    written = lib.llama_state_seq_get_data(context, target, state.size, sequence.number)
    if written != state.size:
        raise EngineError(f"llama.cpp gave {written} of {state.size} bytes of the trunk's state")
    tokens = np.array(trunk.token_ids, np.int32)
    write_shard(
        path,
        [
            _tensor("state", "U8", state),
            _tensor("token_ids", "I32", tokens),
            _tensor("last_logits", "F32", trunk.last_logits),
        ],
        {**_key(loaded), "turn": trunk.turn, "adapters": json.dumps(sorted(trunk.adapters))},
    )


def read(path: Path, loaded: LoadedGguf, adapters: frozenset[str]) -> tuple[LlamaCppTrunk, Any]:
    """Return a trunk that has no sequence yet, and the state for `restore`.

    Args:
        path: what `save` wrote.
        loaded: the model that is to go on with it.
        adapters: content hashes of the adapters that are loaded.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or of another model.
        InputError: it needs an adapter that is not loaded.
    """
    arrays = {
        name: np.fromfile(path, dtype, info.num_elements, offset=info.start)
        for name, info in read_header(path).items()
        if (dtype := {"U8": np.uint8, "I32": np.int32, "F32": np.float32}.get(info.dtype))
    }
    metadata = _metadata(path)
    turn, needed = metadata.get("turn"), json.loads(metadata.get("adapters", "[]"))
    names = {"state", "token_ids", "last_logits"}
    if metadata.get("format") != _FORMAT or set(arrays) != names or turn not in get_args(Turn):
        raise CheckpointError(f"{path} is no trunk of the llama.cpp engine", hint=_AGAIN)
    for key, value in _key(loaded).items():
        if metadata.get(key) != value:
            raise CheckpointError(
                f"{path} belongs to another {key}: {metadata.get(key)}, not {value}", hint=_AGAIN
            )
    if missing := sorted(set(needed) - adapters):
        raise InputError(
            f"{path} was made with the adapter of SHA-256 {missing[0]}, which is not loaded",
            hint="load the adapter first",
        )
    trunk = LlamaCppTrunk(
        sequence=None,
        turn=cast("Turn", turn),
        token_ids=arrays["token_ids"].tolist(),
        last_logits=arrays["last_logits"],
        adapters=frozenset(needed),
    )
    return trunk, arrays["state"]


def restore(state: NDArray[np.uint8], sequence: Sequence, loaded: LoadedGguf) -> None:
    """Put a state into an empty sequence.

    Raises:
        EngineError: llama.cpp refuses it.
    """
    source = pointer_array(state, ctypes.c_uint8)
    read_bytes = loaded.lib.llama_state_seq_set_data(
        loaded.context, source, state.size, sequence.number
    )
    if read_bytes != state.size:
        raise EngineError("llama.cpp refuses the trunk's saved state", hint=_AGAIN)


def _key(loaded: LoadedGguf) -> dict[str, str]:
    """Return what must be the same for a state to mean the same."""
    return {
        "format": _FORMAT,
        "model": loaded.content_hash,
        "active experts": str(loaded.tap.top_k),
        "cache type": loaded.kv_type,
    }


def _tensor(name: str, dtype: str, array: NDArray[Any]) -> TensorOut:
    def produce() -> list[bytes]:
        return [array.tobytes()]

    return TensorOut(name=name, dtype=dtype, shape=array.shape, produce=produce)


def _metadata(path: Path) -> dict[str, str]:
    """Return the text beside the tensors; the header was checked when it was read."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return dict(json.loads(file.read(length)).get("__metadata__") or {})
