"""Write one safetensors shard as a stream, tensor by tensor."""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from veche.checkpoint.header import DTYPE_BYTES
from veche.core.files import atomic_writer, write_json

Chunks = Iterable[bytes | memoryview]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorOut:
    """A tensor to be written.

    Attributes:
        name: its key.
        dtype: safetensors' spelling.
        shape: its dimensions.
        produce: makes its bytes, row-major, in pieces of any size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    produce: Callable[[], Chunks]

    @property
    def num_bytes(self) -> int:
        """Its length in the file."""
        size = DTYPE_BYTES[self.dtype]
        for dimension in self.shape:
            size *= dimension
        return size


def write_shard(path: Path, tensors: Iterable[TensorOut], metadata: Mapping[str, str]) -> None:
    """Write a shard atomically; at no time is more than one chunk of it in memory.

    Args:
        path: the file to make.
        tensors: in the order in which they are to lie.
        metadata: text for the header's `__metadata__`.

    Raises:
        DiskError: the disk is full or refuses.
        AssertionError: a tensor produced another number of bytes than it announced.
    """
    tensors = list(tensors)
    with atomic_writer(path) as file:
        file.write(_header(tensors, metadata))
        for tensor in tensors:
            written = 0
            for chunk in tensor.produce():
                file.write(chunk)
                written += len(chunk)
            if written != tensor.num_bytes:
                raise AssertionError(f"{tensor.name}: {written} bytes, not {tensor.num_bytes}")


def write_index(path: Path, weight_map: Mapping[str, str], total_bytes: int) -> None:
    """Write model.safetensors.index.json."""
    write_json(path, {"metadata": {"total_size": total_bytes}, "weight_map": dict(weight_map)})


def _header(tensors: list[TensorOut], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.num_bytes],
        }
        offset += tensor.num_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
