"""Write safetensors shards: tensor by tensor, in any order, by any number of threads."""

import errno
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from veche.checkpoint.header import DTYPE_BYTES, TensorInfo
from veche.checkpoint.reader import read_into
from veche.core.files import disk_error, partial_of, sync_folder, write_json
from veche.core.progress import Advance

Chunks = Iterable[bytes | memoryview]
_COPY_BYTES = 8 << 20
_NO_FALLOCATE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems without preallocation answer."""


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


def copied(info: TensorInfo) -> TensorOut:
    """Return the tensor that is, byte for byte, one of a file."""
    return TensorOut(
        name=info.name, dtype=info.dtype, shape=info.shape, produce=partial(_bytes_of, info)
    )


class ShardFile:
    """A shard that is being written, under another name until it is whole.

    NOTE: `path` names nothing before `finish`, which flushes all of it to the disk first; after a
    crash at any moment a shard is there and complete, or not there.
    """

    def __init__(
        self, path: Path, tensors: Sequence[TensorOut], metadata: Mapping[str, str]
    ) -> None:
        """Make the file at its full length, which a full disk refuses at once, with its header.

        Args:
            path: the file to make.
            tensors: in the order in which they are to lie.
            metadata: text for the header's `__metadata__`.

        Raises:
            OSError: the disk is full or refuses.
        """
        header = _header(tensors, metadata)
        self.path, self.tensors = path, tuple(tensors)
        self._partial = partial_of(path)
        self._starts = _starts(tensors, len(header))
        num_bytes = len(header) + sum(tensor.num_bytes for tensor in tensors)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._descriptor = os.open(self._partial, flags, 0o666)
        try:
            _reserve(self._descriptor, num_bytes)
            _write_at(self._descriptor, memoryview(header), 0)
        except BaseException:
            self.abandon()
            raise

    def write(self, index: int, advance: Advance) -> None:
        """Write tensor number `index`, from any thread; no more than a chunk is in memory.

        Raises:
            OSError: the disk is full or refuses.
            AssertionError: it produced another number of bytes than it announced.
        """
        tensor, offset = self.tensors[index], self._starts[index]
        end = offset + tensor.num_bytes
        for chunk in tensor.produce():
            if offset + len(chunk) <= end:
                _write_at(self._descriptor, memoryview(chunk), offset)
            offset += len(chunk)
            advance(len(chunk))
        if offset != end:
            raise AssertionError(f"{tensor.name}: {offset - end:+} bytes against its shape")

    def finish(self) -> None:
        """Flush the file to the disk and give it its name.

        Raises:
            OSError: the disk is full or refuses.
        """
        os.fsync(self._descriptor)
        self._close()
        self._partial.replace(self.path)
        sync_folder(self.path.parent)

    def abandon(self) -> None:
        """Remove what was written, unless it was finished."""
        self._close()
        self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def write_shard(path: Path, tensors: Sequence[TensorOut], metadata: Mapping[str, str]) -> None:
    """Write a shard atomically; at no time is more than one chunk of it in memory.

    Raises:
        DiskError: the disk is full or refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shard = ShardFile(path, tensors, metadata)
        try:
            for index in range(len(tensors)):
                shard.write(index, lambda _: None)
            shard.finish()
        finally:
            shard.abandon()
    except OSError as error:
        raise disk_error(error, path) from error


def write_index(path: Path, weight_map: Mapping[str, str], total_bytes: int) -> None:
    """Write model.safetensors.index.json."""
    write_json(path, {"metadata": {"total_size": total_bytes}, "weight_map": dict(weight_map)})


def _bytes_of(info: TensorInfo) -> Chunks:
    """Yield a tensor's bytes as they lie in the file."""
    with info.file.open("rb", buffering=0) as file:
        for start in range(0, info.num_bytes, _COPY_BYTES):
            chunk = memoryview(bytearray(min(_COPY_BYTES, info.num_bytes - start)))
            read_into(file, chunk, info, start)
            yield chunk


def _starts(tensors: Sequence[TensorOut], first: int) -> list[int]:
    starts = []
    for tensor in tensors:
        starts.append(first)
        first += tensor.num_bytes
    return starts


def _reserve(descriptor: int, num_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
        os.truncate(descriptor, num_bytes)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while len(data):
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _header(tensors: Sequence[TensorOut], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    for tensor, start in zip(tensors, _starts(tensors, 0), strict=True):
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.num_bytes],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
