"""Rows of source tensors → bytes of GGUF tensors, a few megabytes at a time."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.reader import WEIGHT_DTYPES, read_tensor
from veche.core.errors import CheckpointError, UnsupportedError
from veche.surgery.gguf.rope import neighbours_from_halves
from veche.surgery.gguf.tensor_plan import GgufTensor, Part

_CHUNK_VALUES = 2 << 20
"""Values in hand at once: 8 MiB as float32, and a few times that while they are encoded."""


def num_bytes(tensor: GgufTensor) -> int:
    """Return how long the tensor is in the file."""
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[_type(tensor)]
    return tensor.num_elements // int(per_block) * int(block_bytes)


def encoded(tensor: GgufTensor) -> Iterator[bytes]:
    """Yield the tensor's bytes, a chunk of rows at a time; only one chunk is in memory.

    Raises:
        UnsupportedError: a value does not fit the type.
        CheckpointError: a value is not a number.
    """
    if tensor.values is not None:
        yield tensor.values.tobytes()
    for part in tensor.parts:
        step = _rows_a_chunk(tensor.columns, part.head_dim)
        for start in range(part.start, part.stop, step):
            rows = read_rows(part, start, min(start + step, part.stop), tensor.columns)
            yield _encode(rows, tensor, part)


def read_rows(part: Part, start: int, stop: int, columns: int) -> NDArray[Any]:
    """Return rows of a source tensor, in the order of the file, in the source's dtype.

    Rows are mapped from the file for as long as the result lives, not longer. Where rows are
    reordered, `start` and `stop` must be multiples of the head's size, or of a whole vector.

    Shapes: → (stop − start, columns).
    """
    width = WEIGHT_DTYPES[part.info.dtype].itemsize if part.info.dtype in WEIGHT_DTYPES else 1
    row_bytes = columns * width
    window = replace(
        part.info,
        shape=(stop - start, columns),
        start=part.info.start + start * row_bytes,
        num_bytes=(stop - start) * row_bytes,
    )
    rows = read_tensor(window)
    if part.head_dim is None:
        return rows
    if len(part.info.shape) == 1:
        return neighbours_from_halves(rows[0], part.head_dim)[None]
    return neighbours_from_halves(rows, part.head_dim)


def _rows_a_chunk(columns: int, head_dim: int | None) -> int:
    rows = max(1, _CHUNK_VALUES // columns)
    return rows if head_dim is None else max(head_dim, rows // head_dim * head_dim)


def _type(tensor: GgufTensor) -> Any:
    return gguf.GGMLQuantizationType[tensor.type]


def _encode(rows: NDArray[Any], tensor: GgufTensor, part: Part) -> bytes:
    if part.info.dtype == tensor.type:
        return rows.tobytes()
    values = rows.astype(np.float32)
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{part.info.file}: tensor {part.info.name!r} holds NaN or infinity",
            hint="the checkpoint is damaged: fetch it again, or train it again from the last good "
            "step",
        )
    with np.errstate(over="ignore"):
        stored = gguf.quants.quantize(values, _type(tensor))
    if tensor.type == "F16" and not np.isfinite(stored).all():
        largest = float(np.abs(values).max())
        raise UnsupportedError(
            f"{part.info.file}: tensor {part.info.name!r} holds {largest:g}, and float16 ends at "
            "65504",
            hint="export it with --type bf16",
        )
    return bytes(stored.tobytes())
