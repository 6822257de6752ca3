"""How many cards can share the matrices of a model."""

from veche.checkpoint.spec import ModelSpec

FP8_BLOCK = 128
"""Side of the blocks that share one scale in block-quantised FP8 checkpoints."""


def can_split_heads(spec: ModelSpec, tensor_parallel: int) -> bool:
    """Whether n_q % TP = 0, and n_kv % TP = 0 or TP % n_kv = 0 (vLLM, SGLang)."""
    if spec.num_attention_heads % tensor_parallel:
        return False
    kv_heads = spec.num_key_value_heads
    return kv_heads % tensor_parallel == 0 or tensor_parallel % kv_heads == 0


def feasible_tensor_parallel(spec: ModelSpec, *, limit: int = 64) -> tuple[int, ...]:
    """Return the numbers of cards that can share the attention heads of `spec`."""
    return tuple(n for n in range(1, limit + 1) if can_split_heads(spec, n))


def feasible_fp8_tensor_parallel(spec: ModelSpec) -> tuple[int, ...]:
    """Return those of them that can also share the FP8 blocks of its experts."""
    return tuple(n for n in feasible_tensor_parallel(spec) if can_split_fp8_blocks(spec, n))


def can_split_fp8_blocks(spec: ModelSpec, tensor_parallel: int) -> bool:
    """Whether (expert width / TP) % 128 = 0, which block-scaled FP8 experts need."""
    width = spec.moe_intermediate_size or spec.intermediate_size or 0
    return width % (tensor_parallel * FP8_BLOCK) == 0
