"""What an engine's start-up log says, in the same words whichever engine wrote it."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veche.core.errors import InputError
from veche.launch.case import EngineName

MOST_BYTES = 64 << 20
"""A start-up log is at the beginning; of a larger file only this much is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """Facts of one log; None is what it does not say. Sizes are those of one card.

    Attributes:
        engine: who wrote it.
        digest: SHA-256 of the text, so that a log is learned from once.
        version: of the engine.
        model: path or name of the model.
        gpu_title: the card, as the driver calls it.
        total_bytes: memory of the card.
        free_bytes: of it free before loading.
        utilization: share that the engine was given.
        quantization: as the engine names it.
        kv_dtype: as the engine names it.
        max_model_tokens: longest sequence.
        tensor_parallel: cards that share every matrix.
        pipeline_parallel: groups of layers.
        data_parallel: replicas.
        has_expert_parallel: whether experts are dealt out whole.
        batched_tokens: of one prefill step.
        sequences: of one decode step.
        weight_bytes: on the card.
        host_weight_bytes: in the computer's memory.
        kv_available_bytes: for the KV cache.
        kv_tokens: that the KV cache holds.
        needed_kv_bytes: of one sequence of max_model_tokens, where the engine complains of it.
        graph_bytes: of CUDA graphs.
        compute_bytes: llama.cpp's compute buffer.
        overhead_bytes: beside weights and KV cache, where the log says it outright.
        decode_tokens_per_s: of one sequence alone.
    """

    engine: EngineName
    digest: str
    version: str | None = None
    model: str | None = None
    gpu_title: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    utilization: float | None = None
    quantization: str | None = None
    kv_dtype: str | None = None
    max_model_tokens: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    data_parallel: int | None = None
    has_expert_parallel: bool = False
    batched_tokens: int | None = None
    sequences: int | None = None
    weight_bytes: int | None = None
    host_weight_bytes: int | None = None
    kv_available_bytes: int | None = None
    kv_tokens: int | None = None
    needed_kv_bytes: int | None = None
    graph_bytes: int | None = None
    compute_bytes: int | None = None
    overhead_bytes: int | None = None
    decode_tokens_per_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what the log says as JSON values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def read_log(path: Path) -> LogFacts:
    """Read an engine's log.

    Raises:
        InputError: it cannot be read, or no engine that veche knows wrote it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="check the path"
        ) from error
    return parse_log(text, where=str(path))


def parse_log(text: str, *, where: str = "log") -> LogFacts:
    """Return the facts of a start-up log of vLLM, SGLang or llama.cpp.

    Raises:
        InputError: it is none of these, or says nothing about memory.
    """
    from veche.launch import llama_cpp_log, sglang_log, vllm_log

    digest = hashlib.sha256(text.encode()).hexdigest()
    readers = {
        "vllm": (vllm_log.MARKS, vllm_log.facts),
        "sglang": (sglang_log.MARKS, sglang_log.facts),
        "llama.cpp": (llama_cpp_log.MARKS, llama_cpp_log.facts),
    }
    counts = {name: sum(text.count(mark) for mark in marks) for name, (marks, _) in readers.items()}
    engine = max(counts, key=lambda name: counts[name])
    if not counts[engine]:
        raise InputError(
            f"{where} is not a start-up log that veche knows",
            hint="give what vLLM, SGLang or llama-server print when they start",
        )
    facts = LogFacts(digest=digest, **_plausible(readers[engine][1](text)))
    if facts.weight_bytes is None and facts.kv_available_bytes is None and facts.kv_tokens is None:
        raise InputError(
            f"{where} says nothing about memory",
            hint="give the log from its first line, at the engine's usual log level",
        )
    return facts


def _plausible(facts: dict[str, Any]) -> dict[str, Any]:
    """Leave out numbers that only a damaged log can have: nothing, or more than the whole card."""
    return {
        key: value
        for key, value in facts.items()
        if isinstance(value, str | bool | None)
        or (0 < value <= 1 if key == "utilization" else value > 0)
    }
