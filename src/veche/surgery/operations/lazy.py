"""A tensor that is never whole in memory: any rows of it on request.

Legend: R rows asked for, C columns. A tensor [A, B, C] is seen as A·B rows of C; one of [A] as A
rows of one.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import read_into, weight_dtype
from veche.core.errors import CheckpointError

Array = NDArray[Any]
Rows = NDArray[np.int64]
_CHUNK_BYTES = 8 << 20
_SAMPLED_VALUES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyTensor:
    """A tensor as a matrix of rows.

    Attributes:
        num_rows: product of all dimensions but the last.
        num_columns: the last dimension; 1 for a vector.
        dtype: of its values.
        take: returns rows [R, C] by number, in any order; a new array.
    """

    num_rows: int
    num_columns: int
    dtype: np.dtype[Any]
    take: Callable[[Rows], Array]

    def whole(self) -> Array:
        """Return all rows, [num_rows, num_columns]."""
        return self.take(np.arange(self.num_rows))

    def chunks(self) -> Iterator[memoryview]:
        """Yield its bytes, row-major, a few megabytes at a time."""
        step = max(1, _CHUNK_BYTES // max(1, self.num_columns * self.dtype.itemsize))
        for start in range(0, self.num_rows, step):
            rows = np.arange(start, min(start + step, self.num_rows))
            yield np.ascontiguousarray(self.take(rows)).view(np.uint8).reshape(-1).data


def from_array(values: Array) -> LazyTensor:
    """Return a tensor that is in memory already."""
    matrix = values.reshape(*as_matrix(values.shape))
    return LazyTensor(
        num_rows=matrix.shape[0],
        num_columns=matrix.shape[1],
        dtype=values.dtype,
        take=lambda rows: matrix[rows],
    )


def from_file(info: TensorInfo) -> LazyTensor:
    """Return a tensor that lies in a safetensors file.

    Raises:
        UnsupportedError: its dtype is not one of weights.
    """
    num_rows, num_columns = as_matrix(info.shape)
    dtype = weight_dtype(info)
    row_bytes = num_columns * dtype.itemsize

    def take(rows: Rows) -> Array:
        out = np.empty((len(rows), num_columns), dtype)
        raw = out.view(np.uint8).reshape(-1).data
        with info.file.open("rb", buffering=0) as file:
            for position, start, count in _runs(rows):
                target = raw[position * row_bytes : (position + count) * row_bytes]
                read_into(file, target, info, start * row_bytes)
        return out

    return LazyTensor(num_rows=num_rows, num_columns=num_columns, dtype=dtype, take=take)


def zeros_like(tensor: LazyTensor) -> LazyTensor:
    """Return a tensor of the same shape that is zero."""
    return zeros(tensor.num_rows, tensor.num_columns, tensor.dtype)


def zeros(num_rows: int, num_columns: int, dtype: np.dtype[Any]) -> LazyTensor:
    """Return a tensor of zeros."""
    return LazyTensor(
        num_rows=num_rows,
        num_columns=num_columns,
        dtype=dtype,
        take=lambda rows: np.zeros((len(rows), num_columns), dtype),
    )


def gathered(tensor: LazyTensor, source_of: Callable[[Rows], Rows], num_rows: int) -> LazyTensor:
    """Return the tensor whose row r is row `source_of(r)` of another."""
    return LazyTensor(
        num_rows=num_rows,
        num_columns=tensor.num_columns,
        dtype=tensor.dtype,
        take=lambda rows: tensor.take(source_of(rows)),
    )


def standard_deviation(tensor: LazyTensor, start: int, stop: int, name: str) -> float:
    """Return the standard deviation of rows start … stop, for new random rows beside them.

    It is measured on at most 65,536 values, in evenly spaced rows: its standard error is 0.3 %.

    Raises:
        CheckpointError: there is NaN or infinity among them.
    """
    count = min(stop - start, max(8, _SAMPLED_VALUES // tensor.num_columns))
    rows = np.linspace(start, stop - 1, count).astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):  # what infinity gives is refused below
        deviation = float(tensor.take(rows).astype(np.float64).std())
    if not math.isfinite(deviation):
        raise CheckpointError(
            f"{name!r} holds NaN or infinity, so new units cannot be made like its old ones",
            hint="the checkpoint is damaged: fetch it again",
        )
    return deviation


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns under which a tensor of `shape` is seen."""
    if len(shape) < 2:
        return math.prod(shape), 1
    return math.prod(shape[:-1]), shape[-1]


def _runs(rows: Rows) -> Iterator[tuple[int, int, int]]:
    """Cut row numbers into runs of consecutive ones: (position, first row, count)."""
    if not len(rows):
        return
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    for begin, end in itertools.pairwise(bounds):
        yield begin, int(rows[begin]), end - begin
