"""The header of one safetensors file, believed only after it was checked.

Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format").
"""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from veche.core.errors import CheckpointError
from veche.core.files import open_regular
from veche.core.json_text import parse_json

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
MAX_HEADER_BYTES = 16 << 20
"""The longest header that is read: a header has 100 to 150 bytes a tensor, so this is some 110,000
tensors in one file (Qwen3-235B-A22B has 36,000 in 118 files).

The safetensors library reads 100 MB, and Python's objects may take thirty times as much.
"""
MAX_TENSORS = 500_000
"""Of one checkpoint: 96 layers of 512 experts have 150,000."""
_MAX_DIMENSIONS = 8
_MAX_NAME = 512
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
        with open_regular(file) as stream:
            file_bytes = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            _require_length(length, file, file_bytes)
            raw = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}", hint=_AGAIN) from error
    entries = _parse(raw, file)
    tensors = {
        name: _checked(name, entry, file, 8 + length, file_bytes)
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    _require_one_after_another(tensors, file, 8 + length, file_bytes)
    return tensors


def _require_length(length: int, file: Path, file_bytes: int) -> None:
    if not 0 < length <= file_bytes - 8:
        raise CheckpointError(
            f"{file} is not a safetensors file: it claims a header of {length} bytes "
            f"and has {file_bytes}",
            hint=_AGAIN,
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file} has a header of {length} bytes; veche reads {MAX_HEADER_BYTES}, which is "
            "enough for 100,000 tensors in one file",
            hint="this header is padded or hostile; loading and saving the model with "
            "transformers writes it anew",
        )


def _parse(raw: bytes, file: Path) -> dict[str, Any]:
    try:
        entries = parse_json(raw)
    except ValueError as error:
        raise CheckpointError(f"{file}: its header is not JSON ({error})", hint=_AGAIN) from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: its header is not a JSON object", hint=_AGAIN)
    return entries


def _checked(name: str, entry: Any, file: Path, base: int, file_bytes: int) -> TensorInfo:
    if len(name) > _MAX_NAME or not name.isprintable():
        raise CheckpointError(
            f"{file}: {name[:40]!r} is not a tensor's name: it has {len(name)} characters, or some "
            "that cannot be printed",
            hint=_AGAIN,
        )
    if not isinstance(entry, dict):
        raise CheckpointError(f"{file}: tensor {name!r} is not described by an object", hint=_AGAIN)
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{file}: tensor {name!r} has dtype {str(dtype)[:40]!r}, which veche does not read",
            hint="use the model's bf16, fp16 or fp32 checkpoint",
        )
    if not _is_counts(shape, _MAX_DIMENSIONS) or not _is_counts(offsets, 2) or len(offsets) != 2:
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


def _is_counts(value: Any, at_most: int) -> TypeGuard[list[int]]:
    """Whether it is a short list of sizes that 64 bits hold."""
    return (
        isinstance(value, list)
        and len(value) <= at_most
        and all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 63
            for item in value
        )
    )


def _require_one_after_another(
    tensors: dict[str, TensorInfo], file: Path, base: int, file_bytes: int
) -> None:
    """Refuse tensors that overlap, and bytes that belong to none: the format has neither."""
    end = base
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.num_bytes)):
        if info.start < end:
            raise CheckpointError(f"{file}: tensor {info.name!r} overlaps another", hint=_AGAIN)
        if info.start > end:
            raise CheckpointError(
                f"{file}: {info.start - end} bytes before tensor {info.name!r} belong to none",
                hint=_AGAIN,
            )
        end = info.start + info.num_bytes
    if end != file_bytes:
        raise CheckpointError(
            f"{file}: {file_bytes - end} bytes after the last tensor belong to none", hint=_AGAIN
        )
