"""Prediction against a start-up log, line by line."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.launch.case import Case
from veche.launch.gpus import GIB, Gpu
from veche.launch.layout import Layout
from veche.launch.log_facts import LogFacts
from veche.launch.memory import Span, memory_of
from veche.launch.overhead import LOADING_GIB, StepSize
from veche.launch.profiles import decode_tokens_per_s
from veche.launch.support import engines_own_step, utilizations
from veche.planning.kv_cache import BLOCK_TOKENS, kv_dtype
from veche.planning.quantization import quantization, weights_by_kind

WEIGHT_TOLERANCE = 0.003
TOKEN_TOLERANCE = 0.001
RANK_SPREAD = 0.02
"""vLLM logs the first rank's bytes, and the tokens of the rank that has least."""
KV_ROUNDING_BYTES = round(0.012 * GIB)
"""Engines print their KV cache with two decimals of a GiB, SGLang keys and values apart."""
_ENGINE_WORDS = {
    "auto": "bf16", "bfloat16": "bf16", "float16": "bf16", "half": "bf16", "fp8_e4m3": "fp8",
    "float8_e4m3fn": "fp8", "fp8_e5m2": "fp8", "float8_e5m2": "fp8",
}  # fmt: skip
_WEIGHT_WORDS = {
    "fp8": "fp8-block", "awq": "awq-int4", "awq_marlin": "awq-int4", "gptq": "gptq-int4",
    "gptq_marlin": "gptq-int4", "modelopt": "nvfp4", "modelopt_fp4": "nvfp4", "mxfp4": "mxfp4",
    "w8a8_fp8": "fp8-tensor", "w8a8_int8": "int8",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One quantity: what was predicted and what the log says.

    Attributes:
        quantity: LogFacts' name of it.
        unit: bytes, tokens or tok/s.
        predicted: lowest and highest.
        fact: the log's number.
        holds: whether the fact is inside, give or take the quantity's tolerance.
    """

    quantity: str
    unit: str
    predicted: tuple[float, float]
    fact: float
    holds: bool

    @property
    def error(self) -> float:
        """How far outside the fact lies, as a share of it; 0 inside."""
        low, high = self.predicted
        away = max(low - self.fact, self.fact - high, 0.0)
        return away / self.fact if self.fact else away


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A log against its prediction.

    Attributes:
        case: the case that the log describes.
        lines: quantity by quantity.
        overhead_bytes: what the engine took beside weights and KV cache; None if not deducible.
        position: where that lies in the general interval: 0 at its low end, 1 at its high end.
        digest: of the log.
    """

    case: Case
    lines: tuple[Line, ...]
    overhead_bytes: int | None
    position: float | None
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "engine": self.case.engine,
            "gpu": self.case.gpu.name,
            "quantization": self.case.quantization,
            "kv_dtype": self.case.kv_dtype,
            "lines": [{**asdict(line), "error": line.error} for line in self.lines],
            "overhead_bytes": self.overhead_bytes,
            "position": self.position,
        }


def case_of(
    spec: ModelSpec,
    facts: LogFacts,
    gpu: Gpu,
    *,
    quantization_name: str | None = None,
    kv_dtype_name: str | None = None,
) -> Case:
    """Return the case that a log describes; arguments win over what the log says.

    Raises:
        InputError: the log names a quantisation that veche does not know, and none is given.
    """
    total = facts.total_bytes
    if total and facts.engine != "llama.cpp":
        gpu = replace(gpu, visible_gib=(total / GIB, total / GIB))
    layout = Layout(
        tensor_parallel=facts.tensor_parallel or 1,
        data_parallel=facts.data_parallel or 1,
        pipeline_parallel=facts.pipeline_parallel or 1,
        has_expert_parallel=facts.has_expert_parallel and spec.is_moe,
    )
    usual = engines_own_step(facts.engine, gpu)
    return Case(
        engine=facts.engine,
        spec=spec,
        gpu=gpu,
        layout=layout,
        quantization=_weights_name(facts, quantization_name),
        kv_dtype=_kv_name(facts, kv_dtype_name),
        utilization=facts.utilization or utilizations(facts.engine, facts.version)[0],
        context_tokens=facts.max_model_tokens or spec.max_position_embeddings,
        step=StepSize(
            batched_tokens=facts.batched_tokens or usual.batched_tokens,
            sequences=facts.sequences or usual.sequences,
        ),
        model_path=facts.model or "MODEL",
        engine_version=facts.version,
    )


def compare(case: Case, facts: LogFacts, *, span: Span | None = None) -> Comparison:
    """Set the prediction for `case` beside `facts`.

    Args:
        case: what the log describes; see case_of.
        facts: the log.
        span: what was learned before, to be tested as a user would meet it.
    """
    memory, general = memory_of(case, span=span), memory_of(case)
    overhead = _observed_overhead(case, facts)
    low, high = general.overhead_bytes
    position = None if overhead is None else (overhead - low) / max(1, high - low)
    return Comparison(
        case=case,
        lines=tuple(_lines(case, facts, memory.kv_available_bytes)),
        overhead_bytes=overhead,
        position=position,
        digest=facts.digest,
    )


def _lines(case: Case, facts: LogFacts, kv_interval: tuple[int, int]) -> list[Line]:
    if case.engine == "llama.cpp":
        found = [*_llama_cpp_lines(case, facts)]
    else:
        size = memory_of(case).loaded_bytes_per_gpu
        loaded = (size, size + round(LOADING_GIB * GIB))
        found = [
            _line("weight_bytes", "bytes", loaded, facts.weight_bytes, WEIGHT_TOLERANCE),
            _line("kv_available_bytes", "bytes", kv_interval, facts.kv_available_bytes),
        ]
    each = _kv_bytes_in_log(case)
    if facts.kv_tokens and facts.kv_available_bytes:
        tokens, rounding = facts.kv_available_bytes / each, KV_ROUNDING_BYTES / each
        least = tokens * (1 - (RANK_SPREAD if case.layout.num_gpus > 1 else 0))
        expected = (least - rounding - BLOCK_TOKENS, tokens + rounding)
        found.append(_line("kv_tokens", "tokens", expected, facts.kv_tokens, TOKEN_TOLERANCE))
    elif facts.kv_tokens and case.engine != "llama.cpp":
        low, high = kv_interval
        found.append(_line("kv_tokens", "tokens", (low / each, high / each), facts.kv_tokens))
    if facts.needed_kv_bytes and facts.max_model_tokens:
        needed = facts.max_model_tokens * memory_of(case).kv_bytes_per_token
        found.append(
            _line("needed_kv_bytes", "bytes", (needed, needed), facts.needed_kv_bytes, 0.005)
        )
    speed = decode_tokens_per_s(case)
    found.append(_line("decode_tokens_per_s", "tok/s", speed, facts.decode_tokens_per_s))
    return [line for line in found if line is not None]


def _llama_cpp_lines(case: Case, facts: LogFacts) -> list[Line | None]:
    """llama.cpp's buffers: layers are split over cards, so that the cards' sizes are added up."""
    cards = case.layout.num_gpus
    weights = memory_of(case).weight_bytes_per_gpu * cards
    kinds = weights_by_kind(case.spec, case.quantization)
    logits = case.step.batched_tokens * 4 * case.spec.vocab_size
    mask = 2 * case.step.batched_tokens * case.context_tokens
    lines = [
        _line("weight_bytes", "bytes", (weights, weights), facts.weight_bytes, WEIGHT_TOLERANCE),
        _line(
            "compute_bytes",
            "bytes",
            (0.9 * logits, cards * (1.6 * logits + 4 * mask)),
            facts.compute_bytes,
        ),
    ]
    if facts.weight_bytes and facts.weight_bytes > 0.9 * weights:
        host = kinds[Kind.EMBEDDING]
        fact = facts.host_weight_bytes
        lines.append(_line("host_weight_bytes", "bytes", (host, host), fact, WEIGHT_TOLERANCE))
    return lines


def _line(
    quantity: str,
    unit: str,
    predicted: tuple[float, float],
    fact: float | None,
    tolerance: float = 0.0,
) -> Line | None:
    if fact is None:
        return None
    low, high = predicted
    holds = low * (1 - tolerance) <= fact <= high * (1 + tolerance)
    return Line(quantity=quantity, unit=unit, predicted=predicted, fact=fact, holds=holds)


def _kv_bytes_in_log(case: Case) -> int:
    """Bytes of a token in the log's KV size: of one card, or of all where llama.cpp adds up."""
    each = memory_of(case).kv_bytes_per_token_per_gpu
    return each * case.layout.num_gpus if case.engine == "llama.cpp" else each


def _observed_overhead(case: Case, facts: LogFacts) -> int | None:
    """Overhead = share · total − weights − KV; for SGLang what was gone before its measure."""
    if facts.overhead_bytes is not None:
        return facts.overhead_bytes // case.layout.num_gpus
    kv, weights = facts.kv_available_bytes, facts.weight_bytes
    if kv is None and facts.kv_tokens:
        kv = facts.kv_tokens * memory_of(case).kv_bytes_per_token_per_gpu
    if kv is None or weights is None or facts.utilization is None:
        return None
    total = facts.total_bytes or round(sum(case.gpu.visible_bytes) / 2)
    if case.engine == "vllm":
        return round(facts.utilization * total) - weights - kv
    if case.engine == "sglang":
        free = facts.free_bytes or round((weights + kv) / facts.utilization)
        return total - free
    return None


def _weights_name(facts: LogFacts, given: str | None) -> str:
    name = given or facts.quantization or ("Q4_K_M" if facts.engine == "llama.cpp" else "bf16")
    try:
        return quantization(_WEIGHT_WORDS.get(name, name)).name
    except InputError as error:
        raise InputError(
            f"the log's quantisation {name!r} is not one that veche can count",
            hint="say which it is: --quant NAME; " + error.hint,
        ) from error


def _kv_name(facts: LogFacts, given: str | None) -> str:
    usual = "f16" if facts.engine == "llama.cpp" else "bf16"
    name = given or facts.kv_dtype or usual
    if facts.engine != "llama.cpp":
        name = _ENGINE_WORDS.get(name, name)
    return kv_dtype(name)
