"""The header of one safetensors file, believed only after it was checked.

Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format").
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from veche.core.errors import CheckpointError

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
_AGAIN = "the file is damaged or was not downloaded completely: fetch it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        name: its key.
        file: the safetensors file.
        dtype: safetensors' spelling, e.g. "BF16".
        shape: its dimensions.
        start: offset of its first byte in the file.
        num_bytes: its length.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    @property
    def num_elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Return every tensor of a safetensors file, by name.

    Raises:
        CheckpointError: the file is missing, truncated, or its header lies.
    """
    try:
        file_bytes = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            if not 0 < length <= min(MAX_HEADER_BYTES, file_bytes - 8):
                raise CheckpointError(
                    f"{file} is not a safetensors file: it claims a header of {length} bytes "
                    f"and has {file_bytes}",
                    hint=_AGAIN,
                )
            raw = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    entries = _parse(raw, file)
    tensors = {
        name: _checked(name, entry, file, 8 + length, file_bytes)
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    _refuse_overlaps(tensors, file)
    return tensors


def _parse(raw: bytes, file: Path) -> dict[str, Any]:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(keys) != len(set(keys)):
            raise CheckpointError(f"{file}: a name stands twice in its header", hint=_AGAIN)
        return dict(pairs)

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=refuse_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{file}: its header is not JSON ({error})", hint=_AGAIN) from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: its header is not a JSON object", hint=_AGAIN)
    return entries


def _checked(name: str, entry: Any, file: Path, base: int, file_bytes: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise CheckpointError(f"{file}: tensor {name!r} is not described by an object", hint=_AGAIN)
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{file}: tensor {name!r} has dtype {dtype!r}, which veche does not read",
            hint="use the model's bf16, fp16 or fp32 checkpoint",
        )
    if not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{file}: tensor {name!r} has no valid shape or offsets", hint=_AGAIN)
    start, end = offsets
    num_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - start != num_bytes:
        raise CheckpointError(
            f"{file}: tensor {name!r} of {dtype} {shape} needs {num_bytes} bytes, "
            f"its offsets give {end - start}",
            hint=_AGAIN,
        )
    if base + end > file_bytes:
        raise CheckpointError(
            f"{file} is truncated: tensor {name!r} ends at byte {base + end}, "
            f"the file has {file_bytes}",
            hint=_AGAIN,
        )
    return TensorInfo(
        name=name, file=file, dtype=dtype, shape=tuple(shape), start=base + start,
        num_bytes=num_bytes,
    )  # fmt: skip


def _is_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _refuse_overlaps(tensors: dict[str, TensorInfo], file: Path) -> None:
    end = 0
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.num_bytes)):
        if info.start < end:
            raise CheckpointError(f"{file}: tensor {info.name!r} overlaps another", hint=_AGAIN)
        end = info.start + info.num_bytes
