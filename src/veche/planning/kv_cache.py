"""How many bytes the keys and values of a token take."""

import difflib
from fractions import Fraction

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.planning.gguf_types import BLOCKS

KV_BYTES_PER_VALUE: dict[str, Fraction] = {
    "f32": Fraction(4),
    "bf16": Fraction(2),
    "f16": Fraction(2),
    "fp8": Fraction(1),
    "q8_0": Fraction(BLOCKS["Q8_0"][1], BLOCKS["Q8_0"][0]),
    "q4_0": Fraction(BLOCKS["Q4_0"][1], BLOCKS["Q4_0"][0]),
}
"""Bytes of one key or value; the quantised ones count their block's scale."""

_ALIASES = {
    "float32": "f32", "fp32": "f32", "float16": "f16", "fp16": "f16", "bfloat16": "bf16",
    "auto": "bf16", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8",
}  # fmt: skip
BLOCK_TOKENS = 16
"""Tokens of one block of the cache (vLLM's default; the others are at most as coarse)."""


def kv_dtype(name: str) -> str:
    """Return the KV data type that `name` means.

    Raises:
        InputError: there is none; the nearest is named.
    """
    wanted = _ALIASES.get(name.lower(), name.lower())
    if wanted in KV_BYTES_PER_VALUE:
        return wanted
    near = difflib.get_close_matches(wanted, KV_BYTES_PER_VALUE, n=1, cutoff=0.4)
    raise InputError(
        f"--kv: there is no KV cache type {name!r}",
        hint=(f"did you mean {near[0]!r}? " if near else "")
        + f"known: {', '.join(KV_BYTES_PER_VALUE)}",
    )


def kv_bytes_per_token(spec: ModelSpec, dtype: str, *, tensor_parallel: int = 1) -> int:
    """Return 2 · layers · heads on a card · head_dim · bytes, for one card.

    Heads on a card: n_kv / TP, and at least one: vLLM and SGLang replicate a head when there are
    more cards than heads (vLLM QKVParallelLinear: max(1, total_num_kv_heads // tp_size)).
    """
    heads = max(1, spec.num_key_value_heads // tensor_parallel)
    values = 2 * spec.num_hidden_layers * heads * spec.head_dim
    return round(values * KV_BYTES_PER_VALUE[kv_dtype(dtype)])


def tokens_in(num_bytes: int, bytes_per_token: int) -> int:
    """Return how many tokens fit into `num_bytes`, in whole blocks; 0 for a negative size."""
    return max(0, num_bytes) // (bytes_per_token * BLOCK_TOKENS) * BLOCK_TOKENS
