"""Read a GGUF file back and hold it against what llama.cpp will ask of it, and against its source.

Shapes are computed from the file's own metadata, as llama.cpp's loader computes them
(load_arch_tensors in src/models/*.cpp); names come from the tables of the `gguf` package.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from veche.core.errors import VerificationError
from veche.surgery.gguf.encode import read_rows
from veche.surgery.gguf.read_back import GgufFile, decoded_rows, read_back
from veche.surgery.gguf.tensor_plan import GgufTensor, Part

Shape = tuple[int, ...]
_OPTIONAL = {"output.weight", "rope_freqs.weight"}
_OPTIONAL_IN_LAYER = {"attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"}
_ROUNDING = {"F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}
"""Largest error of a value relative to itself: half a unit in the last place."""
_F16_STEP = 2.0**-25
"""Half the distance of float16's smallest numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """What was found in a file that passed.

    Attributes:
        num_tensors: all of them named and shaped as llama.cpp asks.
        num_parameters: values in all tensors.
        types: type → tensors of it.
        num_rows_compared: rows that were decoded and compared with the source.
        relative_error: root of the mean squared error of those rows' values, over that of the
            values themselves.
    """

    num_tensors: int
    num_parameters: int
    types: Mapping[str, int]
    num_rows_compared: int
    relative_error: float


def expected_shapes(metadata: Mapping[str, Any]) -> dict[str, Shape]:
    """Return every tensor that llama.cpp may ask for in such a file: name → shape, as in numpy.

    Args:
        metadata: the file's keys and values.
    """
    name = metadata["general.architecture"]

    def value(key: str, default: int = 0) -> int:
        return int(metadata.get(f"{name}.{key}", default))

    hidden, heads = value("embedding_length"), value("attention.head_count")
    vocab = len(metadata["tokenizer.ggml.tokens"])
    head = value("attention.key_length", hidden // heads)
    shapes = {
        "token_embd.weight": (vocab, hidden),
        "output_norm.weight": (hidden,),
        "output.weight": (vocab, hidden),
        "rope_freqs.weight": (value("rope.dimension_count", head) // 2,),
    }
    layer = _attention_shapes(name, hidden, heads * head, value("attention.head_count_kv") * head)
    if name in ("qwen3", "qwen3moe"):
        layer |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
    num_experts, width = value("expert_count"), value("feed_forward_length")
    if num_experts:
        width = value("expert_feed_forward_length", width)
        layer |= _expert_shapes(hidden, num_experts, width)
    else:
        layer |= _mlp_shapes("ffn_{}.weight", hidden, width)
    if name == "qwen2moe":
        shared = value("expert_shared_feed_forward_length", width)
        layer |= _mlp_shapes("ffn_{}_shexp.weight", hidden, shared)
        layer["ffn_gate_inp_shexp.weight"] = (hidden,)
    blocks = range(value("block_count"))
    return shapes | {f"blk.{i}.{key}": shape for i in blocks for key, shape in layer.items()}


def _attention_shapes(name: str, hidden: int, q_size: int, kv_size: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "attn_norm.weight": (hidden,),
        "ffn_norm.weight": (hidden,),
        "attn_q.weight": (q_size, hidden),
        "attn_k.weight": (kv_size, hidden),
        "attn_v.weight": (kv_size, hidden),
        "attn_output.weight": (hidden, q_size),
        "attn_q.bias": (q_size,),
        "attn_k.bias": (kv_size,),
        "attn_v.bias": (kv_size,),
    }
    if name == "llama":
        shapes["attn_output.bias"] = (hidden,)
    if name == "olmoe":
        shapes |= {"attn_q_norm.weight": (hidden,), "attn_k_norm.weight": (hidden,)}
    return shapes


def _expert_shapes(hidden: int, num_experts: int, width: int) -> dict[str, Shape]:
    return {
        "ffn_gate_inp.weight": (num_experts, hidden),
        "ffn_gate_exps.weight": (num_experts, width, hidden),
        "ffn_up_exps.weight": (num_experts, width, hidden),
        "ffn_down_exps.weight": (num_experts, hidden, width),
    }


def _mlp_shapes(pattern: str, hidden: int, width: int) -> dict[str, Shape]:
    shapes = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    return {pattern.format(kind): shape for kind, shape in shapes.items()}


def shape_problems(found: Mapping[str, Shape], metadata: Mapping[str, Any]) -> list[str]:
    """Return what llama.cpp would refuse about names and shapes; empty if nothing."""
    expected = expected_shapes(metadata)
    required = {
        name
        for name in expected
        if name not in _OPTIONAL and name.split(".", 2)[-1] not in _OPTIONAL_IN_LAYER
    }
    known = _names_of(metadata["general.architecture"])
    problems = [f"{name} is missing" for name in sorted(required - set(found))]
    for name, shape in found.items():
        if name not in expected or _pattern(name) not in known:
            problems.append(f"{name} is unknown to it")
        elif shape != expected[name]:
            problems.append(f"{name} is {list(shape)}, and it expects {list(expected[name])}")
    return problems


def _names_of(architecture: str) -> set[str]:
    """Return the names of the `gguf` package's table, with {bid} for the layer."""
    (arch,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[arch]}


def _pattern(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        parts[1] = "{bid}"
    return ".".join(parts[:-1])


def check_file(file: Path, tensors: Sequence[GgufTensor], *, is_exact_type: bool) -> FileCheck:
    """Read `file` back and compare it with what llama.cpp expects and with the source.

    Of every tensor the first, middle and last row of its first, middle and last part are decoded.

    Args:
        file: a GGUF file.
        tensors: what it was made of.
        is_exact_type: whether its types must be those of `tensors`; llama-quantize chooses its own.

    Raises:
        VerificationError: it is not what it must be.
    """
    stored = read_back(file)
    shapes = {name: tensor.shape for name, tensor in stored.tensors.items()}
    problems = shape_problems(shapes, stored.metadata)
    problems += _differences(shapes, {tensor.name: tensor.shape for tensor in tensors})
    _refuse(file, problems)
    errors = _Errors()
    for tensor in tensors:
        problems += _compare(tensor, stored, errors, is_exact_type=is_exact_type)
    if errors.relative >= 1:  # no better than zeros
        problems.append(f"its values have a relative error of {errors.relative:.2f}")
    _refuse(file, problems)
    types: dict[str, int] = {}
    for one in stored.tensors.values():
        types[one.type.name] = types.get(one.type.name, 0) + 1
    return FileCheck(
        num_tensors=len(stored.tensors),
        num_parameters=sum(one.num_elements for one in stored.tensors.values()),
        types=dict(sorted(types.items())),
        num_rows_compared=errors.num_rows,
        relative_error=errors.relative,
    )


def _refuse(file: Path, problems: Sequence[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise VerificationError(
            f"{file.name} is not what llama.cpp expects: {problems[0]}{more}",
            hint="this is a mistake of veche or of the checkpoint: report it with config.json",
        )


def _differences(found: Mapping[str, Shape], planned: Mapping[str, Shape]) -> list[str]:
    names = sorted(set(found) | set(planned))
    return [
        f"{name} is {found.get(name)}, and its source is {planned.get(name)}"
        for name in names
        if found.get(name) != planned.get(name)
    ]


class _Errors:
    """Sums of squares over everything that was compared."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.squared_error = 0.0
        self.squared_value = 0.0

    def add(self, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        """Count rows of the source against decoded ones."""
        self.num_rows += len(wanted)
        self.squared_error += float(np.square(found - wanted, dtype=np.float64).sum())
        self.squared_value += float(np.square(wanted, dtype=np.float64).sum())

    @property
    def relative(self) -> float:
        """√(Σ error² / Σ value²)."""
        return (
            float(np.sqrt(self.squared_error / self.squared_value)) if self.squared_value else 0.0
        )


def _compare(
    tensor: GgufTensor, file: GgufFile, errors: _Errors, *, is_exact_type: bool
) -> list[str]:
    stored = file.tensors[tensor.name]
    kind = stored.type.name
    if is_exact_type and kind != tensor.type:
        return [f"{tensor.name} is of type {kind}, not {tensor.type}"]
    problems = []
    for index, wanted in _samples(tensor):
        found = decoded_rows(file, stored, index, index + len(wanted))
        errors.add(wanted, found)
        if is_exact_type and (np.abs(found - wanted) > tolerance(wanted, kind)).any():
            problems.append(f"row {index} of {tensor.name} differs from its source")
    return problems


def tolerance(values: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return how far values may be from their source in a file of type `kind`.

    F16 and BF16 round to nearest. Q8_0 has a scale d = max|x| / 127 in float16 for each block of
    32: |error| ≤ d / 2 + 127 · |d − float16(d)| ≤ max|x| · (1/254 + 2^-11), plus float16's step.

    Shapes: (rows, columns) → (rows, columns).
    """
    if kind in _ROUNDING:
        step = _F16_STEP if kind == "F16" else 0.0
        return np.asarray(np.abs(values) * _ROUNDING[kind] + step)
    blocks = np.abs(values).reshape(len(values), -1, 32).max(axis=-1)
    per_block = blocks * (1 / 254 + 2.0**-11) + 128 * _F16_STEP
    return np.repeat(per_block, 32, axis=-1)


def _samples(tensor: GgufTensor) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the index of a run of rows in the file, and their values in the source."""
    if tensor.values is not None:
        yield 0, tensor.values[None]
    first = 0
    chosen = {0, len(tensor.parts) // 2, len(tensor.parts) - 1}
    for number, part in enumerate(tensor.parts):
        if number in chosen:
            for start, stop in _sample_rows(part):
                rows = read_rows(part, start, stop, tensor.columns)
                yield first + start - part.start, rows.astype(np.float32)
        first += part.stop - part.start


def _sample_rows(part: Part) -> list[tuple[int, int]]:
    """Return runs of rows: single ones, or whole heads where rows are reordered."""
    step = part.head_dim if part.head_dim and len(part.info.shape) > 1 else 1
    count = (part.stop - part.start) // step
    starts = sorted({part.start + number * step for number in (0, count // 2, count - 1)})
    return [(start, start + step) for start in starts]
