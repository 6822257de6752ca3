"""Which GGUF type llama.cpp gives each tensor, and how many bytes that takes.

Source: ggml-org/llama.cpp, src/llama-quant.cpp (llama_tensor_get_type and its fallbacks), without
an importance matrix; block sizes from ggml/src/ggml-common.h.
"""

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.planning.tensors import Matrix

BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "MXFP4": (32, 17), "IQ4_NL": (32, 18),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210), "IQ4_XS": (256, 136),
}  # fmt: skip
"""Values and bytes of one block."""

RECIPES: dict[str, str] = {
    "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q5_K_M": "Q5_K",
    "Q5_K_S": "Q5_K", "Q5_0": "Q5_0", "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K", "Q4_0": "Q4_0",
    "Q5_1": "Q5_1", "Q4_1": "Q4_1", "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS",
    "Q3_K_L": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_S": "Q3_K", "Q2_K": "Q2_K", "Q2_K_S": "Q2_K",
}  # fmt: skip
"""Recipes that llama-quantize knows, and the type that each starts from."""

_WHOLE = frozenset({"F16", "BF16", "Q8_0"})
_FALLBACK = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}  # fmt: skip
_IQ4 = frozenset({"IQ4_NL", "IQ4_XS"})
_SHARED_BY_FOUR = 4
"""Query heads on one KV head from which its values are worth more bits."""
_BIASES = frozenset({Kind.NORM, Kind.QK_NORM, Kind.ROUTER, Kind.Q_BIAS, Kind.K_BIAS, Kind.V_BIAS})
_METADATA_BYTES_PER_TOKEN = 39.3
"""Tokeniser and header in Qwen's own files: 5,969,408 B for 151,936 tokens."""


def gguf_type(matrix: Matrix, spec: ModelSpec, recipe: str) -> str:
    """Return the GGUF type of `matrix` under `recipe`: norms, biases and routers stay F32."""
    if matrix.kind in _BIASES or matrix.is_vector:
        return "F32"
    return _fitting(_wanted_type(matrix, spec, recipe), matrix.columns)


def gguf_bytes(matrix: Matrix, spec: ModelSpec, recipe: str) -> int:
    """Return values / block · bytes of a block for all tensors of `matrix`."""
    per_block, block_bytes = BLOCKS[gguf_type(matrix, spec, recipe)]
    return matrix.num_values // per_block * block_bytes


def gguf_metadata_bytes(spec: ModelSpec) -> int:
    """Estimate what a GGUF file holds beside tensors; almost all of it is the tokeniser."""
    return round(spec.vocab_size * _METADATA_BYTES_PER_TOKEN)


def _wanted_type(matrix: Matrix, spec: ModelSpec, recipe: str) -> str:
    start = RECIPES[recipe]
    is_output = matrix.kind is Kind.LM_HEAD or (
        matrix.kind is Kind.EMBEDDING and spec.tie_word_embeddings
    )
    if recipe in _WHOLE:
        return start
    if is_output:
        return "Q8_0" if matrix.columns % BLOCKS[start][0] else "Q6_K"
    if matrix.kind is Kind.V:
        return _value_type(matrix.layer or 0, spec, recipe)
    if matrix.kind is Kind.K and spec.num_experts == 8:
        return "Q8_0"
    if matrix.kind is Kind.O:
        return _output_projection_type(spec, recipe)
    if matrix.is_down:
        return _down_type(matrix.layer or 0, spec.num_hidden_layers, recipe)
    return start


def _value_type(layer: int, spec: ModelSpec, recipe: str) -> str:
    if spec.num_experts == 8:
        return "Q8_0"
    early = {"Q3_K_M": (2, "Q5_K", "Q4_K"), "Q4_K_S": (4, "Q5_K", "Q4_K")}
    if recipe in early:
        limit, first, rest = early[recipe]
        return first if layer < limit else rest
    if recipe in {"Q4_K_M", "Q5_K_M"} and _has_more_bits(layer, spec.num_hidden_layers):
        return "Q6_K"
    if spec.group_size >= _SHARED_BY_FOUR:
        shared = {"Q2_K": "Q4_K", "Q2_K_S": "Q4_K", "IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K"}
        return {**shared, "Q3_K_L": "Q5_K"}.get(recipe, RECIPES[recipe])
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(recipe, RECIPES[recipe])


def _down_type(layer: int, num_layers: int, recipe: str) -> str:
    if recipe in {"Q4_K_M", "Q5_K_M"} and _has_more_bits(layer, num_layers):
        return "Q6_K"
    if layer < num_layers // 8:
        if recipe == "Q4_K_S" or recipe in _IQ4:
            return "Q5_K"
        if recipe == "Q2_K_S":
            return "Q4_K"
    if recipe == "Q3_K_M":
        return "Q5_K" if layer < num_layers // 16 else "Q4_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(recipe, RECIPES[recipe])


def _output_projection_type(spec: ModelSpec, recipe: str) -> str:
    if spec.num_experts == 8:
        has_raise = recipe in {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"} | _IQ4
        return "Q5_K" if has_raise else RECIPES[recipe]
    raised = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
    return raised.get(recipe, RECIPES[recipe])


def _has_more_bits(layer: int, num_layers: int) -> bool:
    """Return llama.cpp's use_more_bits: the first and last eighth, and every third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: str, columns: int) -> str:
    """Return a type whose block divides the row; llama.cpp falls back likewise."""
    if columns % BLOCKS[kind][0] == 0:
        return kind
    kind = _FALLBACK.get(kind, "F16")
    return kind if columns % BLOCKS[kind][0] == 0 else "F16"
