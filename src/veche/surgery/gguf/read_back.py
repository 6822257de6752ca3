"""What a GGUF file says of itself, read in one pass that keeps no list.

The `gguf` package's reader keeps two arrays for every token and merge: 523 MB and several seconds
for a vocabulary like Qwen3's. Tests hold this reader against that one.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import gguf
import numpy as np
from numpy.typing import NDArray

from veche.core.errors import VerificationError

_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""struct's formats by GGUFValueType."""
_STRING, _ARRAY = 8, 9
_MAGIC, _VERSION = b"GGUF", 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        name: llama.cpp's.
        shape: slowest dimension first.
        type: of gguf.GGMLQuantizationType.
        start: offset of its first byte in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: Any
    start: int

    @property
    def num_elements(self) -> int:
        """Values in all."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[self.type]
        return self.shape[-1] // int(per_block) * int(block_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """What a file holds.

    Attributes:
        path: where it lies.
        metadata: keys and values; a list appears as the range of its indices.
        tensors: by name.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def read_back(path: Path) -> GgufFile:
    """Read metadata and the table of tensors.

    Raises:
        VerificationError: it is no GGUF file of version 3, or ends too early.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
        raise VerificationError(f"{path.name} is not a GGUF file: {error}") from error


def decoded_rows(file: GgufFile, tensor: StoredTensor, start: int, stop: int) -> NDArray[Any]:
    """Return rows of a tensor as float32.

    Shapes: → (stop − start, columns).
    """
    with file.path.open("rb") as stream:
        stream.seek(tensor.start + start * tensor.row_bytes)
        data = stream.read((stop - start) * tensor.row_bytes)
    rows = np.frombuffer(data, np.uint8).reshape(stop - start, tensor.row_bytes)
    values = gguf.quants.dequantize(rows, tensor.type)
    return np.asarray(values, np.float32).reshape(stop - start, tensor.shape[-1])


def _read(file: IO[bytes], path: Path) -> GgufFile:
    magic, version = file.read(4), _number(file, 4)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(f"it begins with {magic!r}, version {version}")
    num_tensors, num_keys = _number(file, 10), _number(file, 10)
    metadata = {_string(file): _value(file, _number(file, 4)) for _ in range(num_keys)}
    table = [_tensor(file) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    data = -(-file.tell() // alignment) * alignment
    tensors = {
        name: StoredTensor(name=name, shape=shape, type=kind, start=data + offset)
        for name, shape, kind, offset in table
    }
    last = max(tensors.values(), key=lambda tensor: tensor.start)
    end = last.start + last.num_elements // last.shape[-1] * last.row_bytes
    if path.stat().st_size < end:
        raise ValueError(f"it ends before its tensor {last.name}")
    return GgufFile(path=path, metadata=metadata, tensors=tensors)


def _number(file: IO[bytes], kind: int) -> Any:
    form = _NUMBERS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: IO[bytes]) -> str:
    return file.read(_number(file, 10)).decode()


def _value(file: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, kind)
    inner, length = _number(file, 4), _number(file, 10)
    if inner in _NUMBERS:
        file.seek(length * struct.calcsize(_NUMBERS[inner]), 1)
    else:
        for _ in range(length):
            _value(file, inner)
    return range(length)


def _tensor(file: IO[bytes]) -> tuple[str, tuple[int, ...], Any, int]:
    name = _string(file)
    dimensions = [_number(file, 10) for _ in range(_number(file, 4))]
    kind = gguf.GGMLQuantizationType(_number(file, 4))
    return name, tuple(reversed(dimensions)), kind, _number(file, 10)
