"""What an engine takes beside weights and KV cache, as an interval: the one unknown here.

What is computed: buffers that grow with the tokens of one step. What is not: libraries, graphs,
communication. Their ranges come from start-up logs of vLLM 0.9–0.29, SGLang and llama.cpp
(benchmarks/launch_calibration.py measures them against logs).
"""

from dataclasses import dataclass

from veche.checkpoint.spec import ModelSpec
from veche.launch.gpus import GIB, Gpu
from veche.launch.layout import Layout

Interval = tuple[int, int]

LIBRARIES_GIB = (0.10, 0.55)
"""CUDA libraries, workspaces, fragments, on one card."""
PAIR_GIB = (0.05, 0.50)
"""Added by two cards that share every matrix: communication buffers."""
GROUP_GIB = (0.80, 2.20)
"""Added by expert or data parallelism, and by four or more cards."""
FP8_GROUP_SHARE = 0.16
"""Of a card's weights, added at most for block-FP8 experts on four or more cards: two logs of
large models on Hopper show 14–15 %, others next to nothing."""
UNIFIED_GIB = (-2.50, 3.50)
"""Added where the CPU's programs live in the same memory: its free part moves while loading."""
GRAPH_GIB_PER_SEQUENCE = 0.0015
LLAMA_CPP_GIB = (0.35, 1.10)
"""CUDA context and pools of llama.cpp beside its compute buffer."""
SGLANG_START_GIB = (0.10, 1.20)
"""Taken before SGLang measures what is free: context, libraries."""
SGLANG_GROUP_GIB = (1.00, 2.20)
"""Added to that by four or more cards."""
TRANSFORMERS_GIB = (0.60, 2.50)
LOADING_GIB = (0.0, 0.07)
"""vLLM's logged weights are the checkpoint and this much: alignment, tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSize:
    """The largest step that an engine prepares for.

    Attributes:
        batched_tokens: tokens of one prefill step (max_num_batched_tokens, ubatch, chunk).
        sequences: sequences of one decode step (max_num_seqs, slots).
    """

    batched_tokens: int
    sequences: int


def activation_bytes(spec: ModelSpec, layout: Layout, step: StepSize) -> int:
    """Return the working buffers of one step on one card.

    2 bytes · T · (3 H + 2 (q + 2 kv) / TP) for the residual stream and attention, and for the MLP
    2 · T · k · (max(2 I, H) + I): the fused expert kernel's intermediate caches (vLLM
    layers/fused_moe/fused_moe.py). With expert parallelism over replicas every card sees the
    tokens of all of them; without it I is divided by TP.
    """
    tokens, ranks = step.batched_tokens, layout.tensor_parallel
    flow = 3 * spec.hidden_size + 2 * (spec.q_size + 2 * spec.kv_size) // ranks
    if not spec.is_moe:
        return 2 * tokens * (flow + 3 * (spec.intermediate_size or 0) // ranks)
    width = spec.moe_intermediate_size or 0
    if layout.has_expert_parallel:
        gathered = tokens * layout.data_parallel
    else:
        gathered, width = tokens, max(1, width // ranks)
    caches = spec.num_experts_per_tok * (max(2 * width, spec.hidden_size) + width)
    return 2 * tokens * flow + 2 * gathered * caches


def vllm_overhead(
    spec: ModelSpec, gpu: Gpu, layout: Layout, step: StepSize, fp8_block_bytes: int = 0
) -> Interval:
    """Return util · total − weights − KV of vLLM on one card, lowest and highest.

    Half to 1¼ of the activations, libraries, and at most: fp32 logits of every sequence twice,
    and the CUDA graphs that vLLM ≥ 0.21 subtracts beforehand. `fp8_block_bytes` are a card's
    weights if they are block-FP8, else 0.
    """
    active = activation_bytes(spec, layout, step)
    logits = 8 * step.sequences * spec.vocab_size
    graphs = (0.1 + GRAPH_GIB_PER_SEQUENCE * min(step.sequences, 512)) * GIB
    low, high = _gib(LIBRARIES_GIB)
    low, high = low + active / 2, high + 1.25 * active + logits + graphs
    for extra in _extras(gpu, layout):
        low, high = low + extra[0] * GIB, high + extra[1] * GIB
    if layout.num_gpus >= 4 and spec.is_moe:
        high += FP8_GROUP_SHARE * fp8_block_bytes
    return round(low), round(high)


def sglang_start(gpu: Gpu, layout: Layout) -> Interval:
    """Return what is gone before SGLang measures the free memory that its fraction is of."""
    low, high = SGLANG_START_GIB
    if layout.num_gpus >= 4:
        low, high = low + SGLANG_GROUP_GIB[0], high + SGLANG_GROUP_GIB[1]
    elif layout.num_gpus > 1:
        low, high = low + PAIR_GIB[0], high + PAIR_GIB[1]
    if gpu.has_unified_memory:
        low, high = low + UNIFIED_GIB[0], high + UNIFIED_GIB[1]
    return _rounded((low, high))


def llama_cpp_overhead(spec: ModelSpec, context_tokens: int, step: StepSize) -> Interval:
    """Return llama.cpp's compute buffer and CUDA context on one card.

    The buffer is ub · (4 V + 8 H) for logits and hidden states, and 2 · ub · context for the
    attention mask; ub is --ubatch-size.
    """
    tokens = step.batched_tokens
    logits = tokens * (4 * spec.vocab_size + 8 * spec.hidden_size)
    mask = 2 * tokens * context_tokens
    low, high = _gib(LLAMA_CPP_GIB)
    return round(low + logits), round(high + 1.3 * logits + mask)


def transformers_overhead(spec: ModelSpec, step: StepSize) -> Interval:
    """Return what PyTorch's allocator and one unchunked prefill take."""
    active = activation_bytes(spec, Layout(), step)
    low, high = _gib(TRANSFORMERS_GIB)
    return round(low + active / 2), round(high + 2 * active)


def _extras(gpu: Gpu, layout: Layout) -> list[tuple[float, float]]:
    extras = []
    if layout.num_gpus >= 4 or layout.has_expert_parallel or layout.data_parallel > 1:
        extras.append(GROUP_GIB)
    elif layout.num_gpus > 1:
        extras.append(PAIR_GIB)
    if gpu.has_unified_memory:
        extras.append(UNIFIED_GIB)
    return extras


def _gib(interval: tuple[float, float]) -> tuple[float, float]:
    return interval[0] * GIB, interval[1] * GIB


def _rounded(interval: tuple[float, float]) -> Interval:
    low, high = _gib(interval)
    return round(low), round(high)
