"""Launch profiles: for each engine and data type, whether a model fits, how fast, how to start."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.launch.case import Case, EngineName
from veche.launch.command import Command, command_for, facts_of
from veche.launch.fit import Fit, fit_of, has_room, longest_context, useful_length, with_sessions
from veche.launch.layout import choose_layout
from veche.launch.memory import Memory, memory_of
from veche.launch.overhead import StepSize
from veche.launch.phrases import phrase
from veche.launch.profile import Profile
from veche.launch.recommend import mark_recommended
from veche.launch.speed import Band, Workload, decode_band, prefill_band, step_seconds
from veche.launch.support import (
    DEFAULT_QUANTIZATIONS,
    KV_DTYPES,
    can_run,
    default_step,
    obstacle,
    utilizations,
)
from veche.launch.wish import Wish, make_wish

SPEED_CONTEXT_TOKENS = 1024
"""Context at which decode_tokens_per_s is stated; benchmarks are run at such lengths."""
PROMPT_TOKENS = 4096
"""Prompt for which time_to_first_token_s is stated."""


def profiles_for(spec: ModelSpec, **asked: Any) -> list[Profile]:
    """Return a profile for each engine, quantisation and KV type; one of them is recommended.

    Args:
        spec: the model.
        **asked: see make_wish.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    return profiles_of(spec, make_wish(**asked))


def profiles_of(spec: ModelSpec, wish: Wish) -> list[Profile]:
    """Return the profiles that a checked wish asks for.

    Raises:
        InputError: no engine has what was asked for.
    """
    profiles = [
        _best_utilization(spec, wish, engine, quantization, kv)
        for engine in wish.engines
        for quantization, kv in _choices(wish, engine)
    ]
    if not profiles:
        raise InputError(
            f"--engine {', '.join(wish.engines)} does not run"
            + (f" --quant {', '.join(wish.quantizations)}" if wish.quantizations else "")
            + (f" --kv {', '.join(wish.kv_dtypes)}" if wish.kv_dtypes else ""),
            hint=_what_runs(wish),
        )
    return mark_recommended(profiles, wish.language)


def _what_runs(wish: Wish) -> str:
    if wish.stored and wish.stored.quantization != "bf16" and wish.engines == ("transformers",):
        name = wish.stored.quantization
        return f"transformers runs bf16 only, and this checkpoint is {name}: --engine vllm, sglang"
    if wish.engines == ("transformers",):
        return "transformers runs bf16 only; --engine all tries every engine"
    return (
        "GGUF types (Q4_K_M, …) and q8_0, q4_0 are llama.cpp's; the rest is not; "
        "--engine all tries every engine"
    )


def profile_of(case: Case, wish: Wish, max_context_tokens: int) -> Profile:
    """Compute everything about one case.

    Args:
        case: what is run; its context is what must fit.
        wish: what was asked for.
        max_context_tokens: the longest context that fits at any share of the card.
    """
    span = (wish.spans or {}).get(case.engine)
    memory = memory_of(case, span=span)
    fit = fit_of(case, memory, span, wish.language)
    if blocked := obstacle(case):
        reason = phrase(blocked, wish.language, **facts_of(case))
        fit = replace(fit, fits=False, reason=reason, max_sessions=0)
        max_context_tokens = 0
    served = replace(case, context_tokens=min(case.context_tokens, case.spec.position_limit))
    command = command_for(served, language=wish.language)
    notes = (*wish.notes, *command.notes, *_notes_on_fit(served, wish, fit, max_context_tokens))
    command = replace(command, notes=notes)
    return _assembled(served, memory, fit, command, max_context_tokens)


def _notes_on_fit(case: Case, wish: Wish, fit: Fit, max_context_tokens: int) -> list[str]:
    """Say what was learned, what a larger share of the card costs, and what it would give."""
    shares = utilizations(case.engine, case.engine_version)
    facts = {**facts_of(case), "possible": max_context_tokens, "larger": shares[-1]}
    keys = ["learned"] if case.engine in (wish.spans or {}) else []
    if fit.fits and wish.utilization is None and case.utilization > shares[0]:
        keys.append("raised_utilization")
    elif fit.fits and wish.context_tokens is None and wish.utilization is None:
        is_more = useful_length(max_context_tokens, 0) > case.context_tokens
        keys += ["more_with_a_larger_share"] if is_more else []
    return [phrase(key, wish.language, **facts) for key in keys]


def _choices(wish: Wish, engine: EngineName) -> Iterator[tuple[str, str]]:
    """Yield what can be tried with an engine; a KV type of the wrong engine is passed over."""
    weights = wish.quantizations or DEFAULT_QUANTIZATIONS[engine]
    if wish.stored is not None and engine != "llama.cpp":
        weights = (wish.stored.quantization,)
    caches = wish.kv_dtypes or KV_DTYPES[engine]
    known = KV_DTYPES[engine]
    for quantization in weights:
        if can_run(engine, quantization):
            for kv in dict.fromkeys(_own_name(kv, engine) for kv in caches):
                if kv in known:
                    yield quantization, kv


def _own_name(kv: str, engine: EngineName) -> str:
    """16-bit floats are f16 to llama.cpp and bf16 to the others."""
    if kv in {"bf16", "f16"}:
        return "f16" if engine == "llama.cpp" else "bf16"
    return kv


def _best_utilization(
    spec: ModelSpec, wish: Wish, engine: EngineName, quantization: str, kv: str
) -> Profile:
    """Take the engine's usual share of the card, and a larger one only where it decides.

    NOTE: a larger share never holds less, so that what does not fit at the last fits at none.
    """
    version = (wish.engine_versions or {}).get(engine)
    shares = (wish.utilization,) if wish.utilization else utilizations(engine, version)
    span, limit = (wish.spans or {}).get(engine), spec.position_limit
    cases = [_case(spec, wish, engine, quantization, kv, share) for share in shares]
    wanted = wish.context_tokens or useful_length(0, limit)
    tried = [replace(case, context_tokens=wanted) for case in cases]
    case = next((case for case in tried if has_room(case, span)), tried[-1])
    if wish.context_tokens is None:
        case = replace(case, context_tokens=useful_length(longest_context(case, span), limit))
    return profile_of(case, wish, longest_context(cases[-1], span))


def _case(
    spec: ModelSpec, wish: Wish, engine: EngineName, quantization: str, kv: str, share: float
) -> Case:
    usual = default_step(engine, wish.gpu)
    step = StepSize(
        batched_tokens=wish.batched_tokens or usual.batched_tokens,
        sequences=wish.max_sequences or usual.sequences,
    )
    layout = wish.layout or choose_layout(
        spec, quantization, wish.num_gpus, num_nodes=wish.num_nodes, engine=engine
    )
    case = Case(
        engine=engine,
        spec=spec,
        gpu=wish.gpu,
        layout=layout,
        quantization=quantization,
        kv_dtype=kv,
        utilization=share,
        context_tokens=wish.context_tokens or spec.position_limit,
        num_nodes=wish.num_nodes,
        step=step,
        model_path=wish.model_path,
        engine_version=(wish.engine_versions or {}).get(engine),
        features=wish.features,
        stored=wish.stored,
    )
    return with_sessions(case, wish.num_sessions)


def _assembled(
    case: Case, memory: Memory, fit: Fit, command: Command, max_context_tokens: int
) -> Profile:
    layout, spec = case.layout, case.spec
    per_replica = -(-case.sessions // layout.data_parallel)
    decode = decode_tokens_per_s(case)
    return Profile(
        engine=case.engine,
        gpu=case.gpu.name,
        num_gpus=layout.num_gpus,
        num_nodes=case.num_nodes,
        tensor_parallel=layout.tensor_parallel,
        data_parallel=layout.data_parallel,
        expert_parallel=layout.has_expert_parallel,
        quantization=case.quantization,
        kv_dtype=case.kv_dtype,
        fits=fit.fits,
        reason=fit.reason,
        weight_bytes=memory.weight_bytes,
        weight_bytes_per_gpu=memory.weight_bytes_per_gpu,
        loaded_bytes_per_gpu=memory.loaded_bytes_per_gpu,
        kv_bytes_per_token=memory.kv_bytes_per_token,
        kv_bytes_per_token_per_gpu=memory.kv_bytes_per_token_per_gpu,
        overhead_bytes=memory.overhead_bytes,
        kv_available_bytes=memory.kv_available_bytes,
        kv_available_tokens=memory.kv_available_tokens,
        max_context_tokens=max_context_tokens,
        max_sessions=fit.max_sessions,
        left_bytes=fit.left_bytes,
        context_tokens=case.context_tokens,
        num_sessions=case.sessions,
        utilization=case.utilization,
        decode_tokens_per_s=decode,
        total_tokens_per_s=(decode[0] * case.sessions, decode[1] * case.sessions),
        full_context_tokens_per_s=decode_band(_seconds(case, per_replica, case.context_tokens)),
        time_to_first_token_s=_first_token(spec, case, min(PROMPT_TOKENS, case.context_tokens)),
        full_time_to_first_token_s=_first_token(spec, case, case.context_tokens),
        command=command.argv,
        env=command.env,
        comments=command.comments,
        notes=command.notes,
        case=case,
    )


def decode_tokens_per_s(case: Case) -> Band:
    """Return tokens a second of each session behind a short context."""
    per_replica = -(-case.sessions // case.layout.data_parallel)
    short = min(SPEED_CONTEXT_TOKENS, case.context_tokens)
    return decode_band(_seconds(case, per_replica, short))


def _seconds(case: Case, sessions: int, context_tokens: int) -> float:
    return step_seconds(
        case.spec,
        case.gpu,
        engine=case.engine,
        quantization_name=case.quantization,
        kv_dtype=case.kv_dtype,
        layout=case.layout,
        work=Workload(sessions=sessions, context_tokens=context_tokens),
    )


def _first_token(spec: ModelSpec, case: Case, prompt_tokens: int) -> tuple[float, float]:
    return prefill_band(spec, case.gpu, case.quantization, case.layout, prompt_tokens)
