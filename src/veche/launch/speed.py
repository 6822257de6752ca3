"""How fast a model decodes and reads its prompt: bands, from bytes, layers and FLOPs.

A plain roofline is 2–5 times too fast for a model of small experts: each layer also costs a
constant time (launches, routing, reduction), which batch 1 never hides.
"""

from dataclasses import dataclass

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.launch.gpus import Gpu
from veche.launch.layout import Layout
from veche.planning.accounting import active_parameters
from veche.planning.kv_cache import kv_bytes_per_token
from veche.planning.quantization import quantization, weights_by_kind
from veche.planning.tensors import EXPERT_KINDS

Band = tuple[float, float]

BANDWIDTH_EFFICIENCY = 0.8
"""Share of the memory's bandwidth that decode kernels reach."""
COMPUTE_EFFICIENCY = 0.25
"""Share of dense bf16 throughput that a large decode batch of a small-expert model reaches: an
expert sees few of the batch's tokens, and its tiles are padded."""
DENSE_COMPUTE_EFFICIENCY = 0.55
"""The same of a dense model, whose matrices see the whole batch, in the weights' own data type: a
decode batch is a short prompt to them (see PREFILL_EFFICIENCY)."""
PREFILL_EFFICIENCY = (0.06, 0.55)
"""The same for one prompt: small experts leave tensor cores idle, more so in short prompts."""
BAND_RATIO = 1.95
"""Upper over lower end of a decode band: versions, clocks and kernels differ that much."""
LAYER_SECONDS = {
    "vllm": (76e-6, 32e-6),
    "sglang": (76e-6, 32e-6),
    "llama.cpp": (48e-6, 20e-6),
    "transformers": (600e-6, 300e-6),
}
"""Constant time of a layer, by engine: with experts, and dense."""
OLD_CARD_FACTOR = 1.3
"""Layers of cards before compute capability 8.9 take this much longer."""
NODE_SECONDS = 250e-6
"""A pipeline's hop to another machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is decoded at once.

    Attributes:
        sessions: sequences that decode together on one replica.
        context_tokens: behind each of them.
        shared_tokens: of these, the part that is one common prefix and read once (a trunk).
        prefill_tokens: of new prompts that are read in the same step.
    """

    sessions: int = 1
    context_tokens: int = 1024
    shared_tokens: int = 0
    prefill_tokens: int = 0


def distinct_experts(spec: ModelSpec, tokens: int) -> float:
    """Return E (1 − (1 − k/E)^B): experts of a layer that B tokens touch, routed independently."""
    if not spec.is_moe:
        return 0.0
    share = spec.num_experts_per_tok / spec.num_experts
    return spec.num_experts * (1 - (1 - share) ** tokens)


def weight_bytes_per_step(
    spec: ModelSpec, quantization_name: str, layout: Layout, work: Workload
) -> float:
    """Return the bytes of weights that one card reads in one step.

    Everything but the input embedding (a look-up) and the experts that no token was sent to.
    """
    weights = weights_by_kind(spec, quantization_name)
    tokens = work.sessions + work.prefill_tokens
    share = distinct_experts(spec, tokens) / spec.num_experts if spec.is_moe else 0.0
    experts = sum(size for kind, size in weights.items() if kind in EXPERT_KINDS)
    looked_up = 0 if spec.tie_word_embeddings else weights[Kind.EMBEDDING]
    rest = sum(weights.values()) - experts - looked_up
    return rest / layout.tensor_parallel + experts * share / layout.expert_ranks


def kv_bytes_per_step(spec: ModelSpec, kv_dtype: str, layout: Layout, work: Workload) -> float:
    """Return the bytes of keys and values that one card reads in one step."""
    own = work.context_tokens - work.shared_tokens
    per_token = kv_bytes_per_token(spec, kv_dtype, tensor_parallel=layout.tensor_parallel)
    return (work.sessions * own + work.shared_tokens) * per_token


def step_seconds(
    spec: ModelSpec,
    gpu: Gpu,
    *,
    engine: str,
    quantization_name: str,
    kv_dtype: str,
    layout: Layout,
    work: Workload,
) -> float:
    """Return the time of one decode step, in the middle of its band.

    t = KV / (0.8 · bandwidth) + max(weights / (0.8 · bandwidth), 2 · active · tokens / (e ·
    FLOPS)) + layers · τ: attention reads the cache, then matrices are read or multiplied with;
    e is 0.25 with experts, 0.55 without.
    """
    bandwidth = BANDWIDTH_EFFICIENCY * gpu.bandwidth_gb_s * 1e9
    caching = kv_bytes_per_step(spec, kv_dtype, layout, work) / bandwidth
    reading = weight_bytes_per_step(spec, quantization_name, layout, work) / bandwidth
    tokens = work.sessions + work.prefill_tokens
    flops = 2 * active_parameters(spec) * tokens / layout.tensor_parallel
    computing = flops / _decode_flops(spec, gpu, quantization_name)
    with_experts, dense = LAYER_SECONDS[engine]
    layer = with_experts if spec.is_moe else dense
    if gpu.is_nvidia and gpu.sm < 89:
        layer *= OLD_CARD_FACTOR
    hops = (layout.pipeline_parallel - 1) * NODE_SECONDS
    return caching + max(reading, computing) + spec.num_hidden_layers * layer + hops


def decode_band(seconds: float) -> Band:
    """Return tokens a second of one session, lowest and highest, around 1 / t."""
    spread = BAND_RATIO**0.5
    return 1 / (seconds * spread), spread / seconds


def prefill_band(
    spec: ModelSpec, gpu: Gpu, quantization_name: str, layout: Layout, prompt_tokens: int
) -> Band:
    """Return seconds to the first token, lowest and highest.

    FLOPs = 2 · active · T + 2 · layers · q · T² (causal attention: half of 4 · q · T · T), in the
    quantisation's own data type at best and in bf16 at worst, and at least one reading of all
    weights.
    """
    tokens = max(1, prompt_tokens)
    dense = 2 * active_parameters(spec) * tokens
    attention = 2 * spec.num_hidden_layers * spec.q_size * tokens**2
    ranks = layout.tensor_parallel
    low_efficiency, high_efficiency = PREFILL_EFFICIENCY
    best = _flops(gpu, quantization(quantization_name).compute_dtype) * high_efficiency * ranks
    worst = _flops(gpu, "bf16") * low_efficiency * ranks
    total = sum(weights_by_kind(spec, quantization_name).values()) / layout.expert_ranks
    touched = min(1.0, distinct_experts(spec, tokens) / spec.num_experts) if spec.is_moe else 1.0
    reading = total * touched / (gpu.bandwidth_gb_s * 1e9)
    low = max(dense / best + attention / (0.5 * _flops(gpu, "bf16") * ranks), reading)
    high = max(dense / worst, reading / BANDWIDTH_EFFICIENCY)
    return low, high + attention / (0.15 * _flops(gpu, "bf16") * ranks)


def _decode_flops(spec: ModelSpec, gpu: Gpu, quantization_name: str) -> float:
    """Return the FLOPs a second that a decode batch reaches."""
    if spec.is_moe:
        return COMPUTE_EFFICIENCY * _flops(gpu, "bf16")
    return DENSE_COMPUTE_EFFICIENCY * _flops(gpu, quantization(quantization_name).compute_dtype)


def _flops(gpu: Gpu, dtype: str) -> float:
    return gpu.tflops.get(dtype, gpu.tflops["bf16"]) * 1e12
