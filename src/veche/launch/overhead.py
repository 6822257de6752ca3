"""What an engine takes beside weights and KV cache, as an interval: the one unknown here.

What is computed: buffers that grow with the tokens and the sequences of one step. What is not:
libraries, communication. Their ranges come from start-up logs of vLLM 0.8–0.29, SGLang and
llama.cpp (benchmarks/launch_calibration.py sets them against logs).
"""

from dataclasses import dataclass

from veche.checkpoint.spec import ModelSpec
from veche.launch.gpus import GIB, Gpu
from veche.launch.layout import Layout

Interval = tuple[int, int]

LIBRARIES_GIB = (0.10, 0.45)
"""CUDA libraries, workspaces, fragments, on one card."""
PAIR_GIB = (0.05, 2.10)
"""Added by two cards that share every matrix: next to nothing over PCIe, 1.8 GiB over NVLink."""
GROUP_GIB = (0.80, 2.40)
"""Added by expert or data parallelism, and by four or more cards."""
UNIFIED_GIB = (-2.50, 3.50)
"""Added where the CPU's programs live in the same memory: its free part moves while loading."""
FLOW_SHARE = (0.3, 1.0)
"""Of the residual stream's, the attention's and a dense MLP's buffers, what is alive at once."""
EXPERT_SHARE = (0.5, 1.4)
"""The same of the expert kernel's buffers, which stay allocated beside the sampler's."""
SAMPLER_GIB = 0.18
BYTES_PER_LOGIT = (14, 38)
"""Of vLLM's sampler while it is measured: since 0.17, and before: logits in bf16 and float32,
probabilities, sorted copies."""
GRAPH_GIB = (0.1, 0.0023)
"""CUDA graphs: a constant, and for each captured batch size up to twice the sequences."""
LARGEST_GRAPH = 512
LLAMA_CPP_GIB = (0.35, 1.10)
"""CUDA context and pools of llama.cpp beside its compute buffer."""
SGLANG_START_GIB = (0.10, 1.20)
"""Taken before SGLang measures what is free: context, libraries."""
SGLANG_PAIR_GIB = (0.05, 1.00)
SGLANG_GROUP_GIB = (1.00, 2.20)
"""Added to that by four or more cards."""
TRANSFORMERS_GIB = (0.60, 2.50)
LOADING_GIB = 0.02
"""Beside its rope table, what vLLM's logged weights have over the checkpoint: alignment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSize:
    """The largest step that an engine prepares for.

    Attributes:
        batched_tokens: tokens of one prefill step (max_num_batched_tokens, ubatch, chunk).
        sequences: sequences of one decode step (max_num_seqs, slots).
    """

    batched_tokens: int
    sequences: int


def rope_table_bytes(spec: ModelSpec) -> int:
    """Return 2 bytes · positions · head_dim: cosines and sines that vLLM loads with the weights.

    Source: vLLM layers/rotary_embedding/base.py, cos_sin_cache; on every card.
    """
    positions = spec.rope.max_scaled_positions or spec.max_position_embeddings
    return 2 * positions * spec.head_dim


def flow_bytes(spec: ModelSpec, layout: Layout, step: StepSize) -> int:
    """Return the buffers of one step through a layer, without experts, on one card.

    2 bytes · T · (3 H + 2 (q + 2 kv) / TP) for the residual stream and attention, and 2 · T · 3 I
    / TP for a dense MLP.
    """
    ranks = layout.tensor_parallel
    width = 3 * spec.hidden_size + 2 * (spec.q_size + 2 * spec.kv_size) // ranks
    if not spec.is_moe:
        width += 3 * (spec.intermediate_size or 0) // ranks
    return 2 * step.batched_tokens * width


def expert_bytes(spec: ModelSpec, layout: Layout, step: StepSize) -> int:
    """Return the fused expert kernel's intermediate caches on one card.

    2 bytes · T · k · (max(2 I, H) + I) (vLLM layers/fused_moe/fused_moe.py). With expert
    parallelism over replicas every card sees the tokens of all of them; without it I is divided
    by TP.
    """
    if not spec.is_moe:
        return 0
    tokens, width = step.batched_tokens, spec.moe_intermediate_size or 0
    if layout.has_expert_parallel:
        tokens *= layout.data_parallel
    else:
        width = max(1, width // layout.tensor_parallel)
    each = spec.num_experts_per_tok * (max(2 * width, spec.hidden_size) + width)
    return 2 * tokens * each


def vllm_overhead(
    spec: ModelSpec,
    gpu: Gpu,
    layout: Layout,
    step: StepSize,
    *,
    has_lean_sampler: bool | None = None,
    has_graphs: bool | None = None,
) -> Interval:
    """Return util · total − weights − KV of vLLM on one card, lowest and highest.

    libraries + max(flow, sampler) + experts + graphs, where the sampler takes 14 or 38 bytes for
    each of S · V logits; the low end leaves sampler and graphs out.

    Args:
        spec: the model.
        gpu: the card.
        layout: how cards share it.
        step: tokens and sequences of one step.
        has_lean_sampler: vLLM 0.17 or newer; None takes the larger at the high end.
        has_graphs: vLLM 0.21 or newer, which subtracts CUDA graphs beforehand; None as well.
    """
    flow, experts = flow_bytes(spec, layout, step), expert_bytes(spec, layout, step)
    per_logit = BYTES_PER_LOGIT[0 if has_lean_sampler else 1]
    sampler = SAMPLER_GIB * GIB + per_logit * step.sequences * spec.vocab_size
    low, high = _gib(LIBRARIES_GIB)
    low += FLOW_SHARE[0] * flow + EXPERT_SHARE[0] * experts
    high += max(FLOW_SHARE[1] * flow, sampler) + EXPERT_SHARE[1] * experts
    if has_graphs is not False:
        constant, each = GRAPH_GIB
        high += (constant + each * min(2 * step.sequences, LARGEST_GRAPH)) * GIB
    for extra in _extras(gpu, layout):
        low, high = low + extra[0] * GIB, high + extra[1] * GIB
    return round(low), round(high)


def sglang_start(gpu: Gpu, layout: Layout) -> Interval:
    """Return what is gone before SGLang measures the free memory that its fraction is of."""
    low, high = SGLANG_START_GIB
    if layout.tensor_parallel >= 4 or layout.has_expert_parallel:
        low, high = low + SGLANG_GROUP_GIB[0], high + SGLANG_GROUP_GIB[1]
    elif layout.num_gpus > 1:
        low, high = low + SGLANG_PAIR_GIB[0], high + SGLANG_PAIR_GIB[1]
    if gpu.has_unified_memory:
        low, high = low + UNIFIED_GIB[0], high + UNIFIED_GIB[1]
    return _rounded((low, high))


def llama_cpp_overhead(spec: ModelSpec, cache_tokens: int, step: StepSize) -> Interval:
    """Return llama.cpp's compute buffer and CUDA context on one card.

    The buffer is ub · (4 V + 8 H) for logits and hidden states, and 2 · ub · cache for the
    attention mask, which spans the whole unified cache; ub is --ubatch-size.
    """
    tokens = step.batched_tokens
    logits = tokens * (4 * spec.vocab_size + 8 * spec.hidden_size)
    mask = 2 * tokens * cache_tokens
    low, high = _gib(LLAMA_CPP_GIB)
    return round(low + logits), round(high + 1.3 * logits + mask)


def transformers_overhead(spec: ModelSpec, step: StepSize) -> Interval:
    """Return what PyTorch's allocator and one unchunked prefill take."""
    active = flow_bytes(spec, Layout(), step) + expert_bytes(spec, Layout(), step)
    low, high = _gib(TRANSFORMERS_GIB)
    return round(low + active / 2), round(high + 2 * active)


def _extras(gpu: Gpu, layout: Layout) -> list[tuple[float, float]]:
    """Return what several cards add; a pipeline alone only passes activations on."""
    extras = []
    if layout.tensor_parallel >= 4 or layout.has_expert_parallel or layout.data_parallel > 1:
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
