"""What fits: weights, overhead, and what they leave for the KV cache of a card."""

import math
from dataclasses import dataclass

from veche.checkpoint.families import TensorKind as Kind
from veche.launch.case import Case
from veche.launch.gpus import GIB
from veche.launch.layout import weight_bytes_per_gpu
from veche.launch.overhead import (
    LOADING_GIB,
    Interval,
    llama_cpp_overhead,
    rope_table_bytes,
    sglang_start,
    transformers_overhead,
    vllm_overhead,
)
from veche.planning.kv_cache import kv_bytes_per_token, tokens_in
from veche.planning.quantization import weight_bytes, weights_by_kind

Span = tuple[float, float]
SGLANG_RESERVE_GIB = 0.3
"""Request tables and allocator fragments inside SGLang's static share, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of one case; intervals are lowest and highest.

    Attributes:
        weight_bytes: of one replica, on all of its cards.
        weight_bytes_per_gpu: on one card.
        loaded_bytes_per_gpu: the same with the tables that the engine counts as weights.
        kv_bytes_per_token: of one replica, without the copies that many cards need.
        kv_bytes_per_token_per_gpu: on one card.
        overhead_bytes: what the engine takes beside both, on one card.
        kv_available_bytes: what is left for the KV cache, on one card, as engines log it.
    """

    weight_bytes: int
    weight_bytes_per_gpu: int
    loaded_bytes_per_gpu: int
    kv_bytes_per_token: int
    kv_bytes_per_token_per_gpu: int
    overhead_bytes: Interval
    kv_available_bytes: Interval

    @property
    def kv_available_tokens(self) -> Interval:
        """Tokens that the KV cache of one replica holds."""
        low, high = self.kv_available_bytes
        each = self.kv_bytes_per_token_per_gpu
        return tokens_in(low, each), tokens_in(high, each)


def memory_of(case: Case, *, span: Span | None = None) -> Memory:
    """Compute the memory of `case`.

    vLLM: util · total − weights − overhead. SGLang: f · free − weights, where free is measured
    after start. llama.cpp and transformers: all that weights and overhead leave.

    Args:
        case: what is run.
        span: the part of the overhead's interval that this machine's logs have left, where 0 is
            its low end and 1 its high end.
    """
    spec, layout = case.spec, case.layout
    weights = _weights_on_gpu(case)
    overhead = _narrowed(_overhead(case), span)
    visible_low, visible_high = case.gpu.visible_bytes
    loaded = weights + (rope_table_bytes(spec) if case.engine == "vllm" else 0)
    slack = _slack(case)
    kv_each = kv_bytes_per_token(spec, case.kv_dtype, tensor_parallel=layout.tensor_parallel)
    kv_each = math.ceil(kv_each * layout.layer_share(spec))
    share = case.utilization
    if case.engine == "sglang":
        low = share * (visible_low - overhead[1]) - loaded - slack
        high = share * (visible_high - overhead[0]) - loaded
    else:
        low = share * visible_low - loaded - slack - overhead[1]
        high = share * visible_high - loaded - overhead[0]
    return Memory(
        weight_bytes=weight_bytes(spec, case.quantization),
        weight_bytes_per_gpu=weights,
        loaded_bytes_per_gpu=loaded,
        kv_bytes_per_token=kv_bytes_per_token(spec, case.kv_dtype),
        kv_bytes_per_token_per_gpu=kv_each,
        overhead_bytes=overhead,
        kv_available_bytes=(max(0, round(low)), max(0, round(high))),
    )


def _weights_on_gpu(case: Case) -> int:
    """llama.cpp keeps the input embedding in the computer's memory and splits by layers."""
    if case.engine != "llama.cpp":
        return weight_bytes_per_gpu(case.spec, case.quantization, case.layout)
    kinds = weights_by_kind(case.spec, case.quantization)
    on_cpu = 0 if case.spec.tie_word_embeddings else kinds[Kind.EMBEDDING]
    return -(-(sum(kinds.values()) - on_cpu) // case.layout.num_gpus)


def _narrowed(interval: Interval, span: Span | None) -> Interval:
    if span is None:
        return interval
    low, width = interval[0], interval[1] - interval[0]
    return max(0, round(low + span[0] * width)), max(0, round(low + span[1] * width))


def _overhead(case: Case) -> Interval:
    if case.engine == "vllm":
        return vllm_overhead(
            case.spec,
            case.gpu,
            case.layout,
            case.step,
            has_lean_sampler=case.is_at_least("0.17"),
            has_graphs=case.is_at_least("0.21"),
        )
    if case.engine == "sglang":
        return sglang_start(case.gpu, case.layout)
    if case.engine == "llama.cpp":
        return llama_cpp_overhead(case.spec, case.context_tokens * case.sessions, case.step)
    return transformers_overhead(case.spec, case.step)


def _slack(case: Case) -> int:
    """What may be gone beside the overhead's interval."""
    gib = {"vllm": LOADING_GIB, "sglang": SGLANG_RESERVE_GIB}.get(case.engine, 0.0)
    return round(gib * GIB)
