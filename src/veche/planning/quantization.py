"""How many bytes a model's weights take in each quantisation, tensor by tensor."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.planning.gguf_types import RECIPES, gguf_bytes
from veche.planning.tensors import DENSE_KINDS, EXPERT_KINDS, SHARED_KINDS, Matrix, matrices_of

GROUP_SIZE = 128
"""Values that share one scale in the usual AWQ and GPTQ checkpoints."""

_LINEAR = EXPERT_KINDS | {Kind.Q, Kind.K, Kind.V, Kind.O, *DENSE_KINDS} | SHARED_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """One way to store weights.

    Attributes:
        name: what the user types.
        matrix_bytes: bytes of all tensors of one `Matrix` entry.
        is_gguf: whether it is a llama.cpp recipe.
        compute_dtype: in which data type the card multiplies: bf16, fp8, int8, fp4.
        aliases: other names.
        source: which file of which engine says so.
    """

    name: str
    matrix_bytes: Callable[[Matrix, ModelSpec], int]
    source: str
    is_gguf: bool = False
    compute_dtype: str = "bf16"
    aliases: tuple[str, ...] = ()


def quantization(name: str) -> Quantization:
    """Return the quantisation that `name` means.

    Raises:
        InputError: there is none; the nearest is named.
    """
    wanted = _normal(name)
    for entry in QUANTIZATIONS.values():
        if wanted in {_normal(entry.name), *(_normal(alias) for alias in entry.aliases)}:
            return entry
    names = {_normal(n): n for q in QUANTIZATIONS.values() for n in (q.name, *q.aliases)}
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    raise InputError(
        f"--quant: there is no quantisation {name!r}",
        hint=(f"did you mean {names[near[0]]!r}? " if near else "")
        + f"known: {', '.join(QUANTIZATIONS)}",
    )


@lru_cache(maxsize=256)
def weights_by_kind(spec: ModelSpec, name: str) -> dict[Kind, int]:
    """Return the bytes of `spec`'s weights in quantisation `name`, by kind of tensor."""
    chosen = quantization(name)
    totals: dict[Kind, int] = {}
    for matrix in _matrices(spec):
        totals[matrix.kind] = totals.get(matrix.kind, 0) + chosen.matrix_bytes(matrix, spec)
    return totals


def weight_bytes(spec: ModelSpec, name: str) -> int:
    """Return the bytes of all of `spec`'s weights in quantisation `name`."""
    return sum(weights_by_kind(spec, name).values())


@lru_cache(maxsize=8)
def _matrices(spec: ModelSpec) -> tuple[Matrix, ...]:
    return tuple(matrices_of(spec))


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")


def _plain(matrix: Matrix, spec: ModelSpec) -> int:
    """2 bytes a value."""
    return 2 * matrix.num_values


def _only(
    kinds: frozenset[Kind], quantised: Callable[[Matrix], int]
) -> Callable[[Matrix, ModelSpec], int]:
    """Quantise matrices of `kinds`; embeddings, output head, routers, norms stay bf16."""

    def count(matrix: Matrix, spec: ModelSpec) -> int:
        if matrix.kind in kinds and not matrix.is_vector:
            return quantised(matrix)
        return _plain(matrix, spec)

    return count


def _fp8_block(matrix: Matrix) -> int:
    """1 byte a value, one float32 scale for each 128 × 128 block."""
    blocks = -(-matrix.rows // 128) * -(-matrix.columns // 128)
    return matrix.num_values + 4 * blocks * matrix.count


def _fp8_tensor(matrix: Matrix) -> int:
    """1 byte a value, one float32 scale a tensor."""
    return matrix.num_values + 4 * matrix.count


def _int8_channel(matrix: Matrix) -> int:
    """1 byte a value, one float32 scale an output channel."""
    return matrix.num_values + 4 * matrix.rows * matrix.count


def _int4_group(matrix: Matrix) -> int:
    """Half a byte a value; a group of 128 adds a float16 scale and a 4-bit zero point."""
    groups = matrix.rows * -(-matrix.columns // GROUP_SIZE) * matrix.count
    return (matrix.num_values + 1) // 2 + 2 * groups + (groups + 1) // 2


def _int4_gptq(matrix: Matrix) -> int:
    """As AWQ, and an int32 group index for each input."""
    return _int4_group(matrix) + 4 * matrix.columns * matrix.count


def _nvfp4(matrix: Matrix) -> int:
    """Half a byte a value, an fp8 scale for 16 values, two float32 scales a tensor."""
    blocks = matrix.rows * -(-matrix.columns // 16) * matrix.count
    return (matrix.num_values + 1) // 2 + blocks + 8 * matrix.count


def _mxfp4(matrix: Matrix) -> int:
    """Half a byte a value, a power-of-two scale of one byte for 32 values."""
    blocks = matrix.rows * -(-matrix.columns // 32) * matrix.count
    return (matrix.num_values + 1) // 2 + blocks


def _gguf(recipe: str) -> Callable[[Matrix, ModelSpec], int]:
    return lambda matrix, spec: gguf_bytes(matrix, spec, recipe)


_SERVED = (
    Quantization(
        name="bf16",
        matrix_bytes=_plain,
        aliases=("bfloat16", "fp16", "float16", "none"),
        source="2 bytes a value",
    ),
    Quantization(
        name="fp8-block",
        matrix_bytes=_only(_LINEAR, _fp8_block),
        compute_dtype="fp8",
        aliases=("fp8", "fp8_block", "fp8_per_block", "float8"),
        source="Qwen's FP8 checkpoints, weight_block_size [128, 128]; vLLM quantization/fp8.py",
    ),
    Quantization(
        name="fp8-tensor",
        matrix_bytes=_only(_LINEAR, _fp8_tensor),
        compute_dtype="fp8",
        aliases=("fp8-runtime", "fp8-dynamic", "fp8_per_tensor"),
        source="vLLM --quantization fp8 on a bf16 checkpoint; layers/quantization/fp8.py",
    ),
    Quantization(
        name="int8",
        matrix_bytes=_only(_LINEAR, _int8_channel),
        compute_dtype="int8",
        aliases=("w8a8", "int8-w8a8"),
        source="compressed-tensors W8A8, one scale an output channel",
    ),
    Quantization(
        name="awq-int4",
        matrix_bytes=_only(_LINEAR, _int4_group),
        aliases=("awq", "int4", "awq_int4"),
        source="AutoAWQ, group 128, zero points; vLLM layers/quantization/awq_marlin.py",
    ),
    Quantization(
        name="gptq-int4",
        matrix_bytes=_only(_LINEAR, _int4_gptq),
        aliases=("gptq",),
        source="GPTQ, group 128; vLLM layers/quantization/gptq_marlin.py",
    ),
    Quantization(
        name="nvfp4",
        matrix_bytes=_only(_LINEAR, _nvfp4),
        compute_dtype="fp4",
        aliases=("fp4",),
        source="NVIDIA ModelOpt NVFP4, blocks of 16; vLLM layers/quantization/modelopt.py",
    ),
    Quantization(
        name="mxfp4",
        matrix_bytes=_only(EXPERT_KINDS, _mxfp4),
        aliases=("mxfp4-moe",),
        source="OCP MX 1.0, blocks of 32, experts only; vLLM layers/quantization/mxfp4.py",
    ),
)
QUANTIZATIONS: dict[str, Quantization] = {entry.name: entry for entry in _SERVED} | {
    recipe: Quantization(
        name=recipe,
        matrix_bytes=_gguf(recipe),
        is_gguf=True,
        aliases=(f"gguf-{recipe}",),
        source="llama.cpp src/llama-quant.cpp, without an importance matrix",
    )
    for recipe in RECIPES
}
