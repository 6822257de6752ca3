"""Traps of the engines, as rules with version ranges: what to add to a command, and why."""

from collections.abc import Callable
from dataclasses import dataclass

from veche.launch.case import Case, EngineName, version_of
from veche.launch.loading import is_bf16_too_large, needs_quantized_checkpoint
from veche.launch.stored_weights import Certainty
from veche.planning.quantization import QUANTIZATIONS
from veche.planning.tensor_parallel import can_split_fp8_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One trap.

    Attributes:
        name: key of the phrase that explains it.
        engine: whose it is.
        applies: whether a case falls into it.
        flags: what to add to the command line.
        env: what to set in the environment.
        since: first version of the engine that has it; None for always.
        until: first version without it; None for not known to be gone.
    """

    name: str
    engine: EngineName
    applies: Callable[[Case], bool]
    flags: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    since: str | None = None
    until: str | None = None


ABOUT_CHECKPOINT = frozenset(
    {"quantized_checkpoint", "gguf_file", "fp8_needs_checkpoint"}
    | {f"stored_{certainty}" for certainty in ("known", "near", "unknown")}
)
"""Rules that say what the weights must be, or are."""


def rules_for(case: Case) -> tuple[Rule, ...]:
    """Return the rules that `case` falls under; an unknown version falls under all ranges."""
    return tuple(
        rule
        for rule in RULES
        if rule.engine == case.engine and _in_range(rule, case) and rule.applies(case)
    )


def _in_range(rule: Rule, case: Case) -> bool:
    own, since, until = case.version, version_of(rule.since), version_of(rule.until)
    if own is None:
        return True
    return (since is None or own >= since) and (until is None or own < until)


def _is_sm12x(case: Case) -> bool:
    return 120 <= case.gpu.sm < 130


def _has_fp8_moe_on_sm12x(case: Case) -> bool:
    is_fp8 = QUANTIZATIONS[case.quantization].compute_dtype == "fp8"
    return _is_sm12x(case) and is_fp8 and case.spec.is_moe


def _has_untuned_experts(case: Case) -> bool:
    """Shapes of stock checkpoints are tuned by vLLM for common cards; grown ones are not."""
    return _is_sm12x(case) and case.spec.is_moe


def _is_too_large_to_quantise(case: Case) -> bool:
    """Quantising while loading may hold the bf16 weights of a card first."""
    is_fp8 = QUANTIZATIONS[case.quantization].compute_dtype == "fp8"
    return is_fp8 and not case.stored and is_bf16_too_large(case)


def _needs_checkpoint(case: Case) -> bool:
    return needs_quantized_checkpoint(case) and not _is_too_large_to_quantise(case)


def _must_keep_experts_whole(case: Case) -> bool:
    is_split = can_split_fp8_blocks(case.spec, case.layout.tensor_parallel)
    is_block = case.quantization == "fp8-block"
    return case.layout.has_expert_parallel and is_block and not is_split


def _keeps_experts_whole_by_wish(case: Case) -> bool:
    return case.layout.has_expert_parallel and not _must_keep_experts_whole(case)


def _is_yarn(case: Case) -> bool:
    return case.spec.rope.max_scaled_positions is not None


def _says(certainty: Certainty) -> Callable[[Case], bool]:
    return lambda case: case.stored is not None and case.stored.certainty == certainty


RULES: tuple[Rule, ...] = (
    *(
        Rule(name=f"stored_{certainty}", engine=engine, applies=_says(certainty))
        for engine in ("vllm", "sglang", "transformers")
        for certainty in ("known", "near", "unknown")
    ),
    *(
        Rule(name="quantized_checkpoint", engine=engine, applies=_needs_checkpoint)
        for engine in ("vllm", "sglang")
    ),
    Rule(name="gguf_file", engine="llama.cpp", applies=lambda case: True),
    Rule(
        name="deep_gemm_off",
        engine="vllm",
        since="0.24",
        until="0.29",
        applies=lambda case: _is_sm12x(case) and case.quantization == "fp8-block",
        env=(("VLLM_USE_DEEP_GEMM", "0"),),
    ),
    *(
        Rule(name="fp8_needs_checkpoint", engine=engine, applies=_is_too_large_to_quantise)
        for engine in ("vllm", "sglang")
    ),
    Rule(
        name="nvfp4_moe_marlin",
        engine="vllm",
        since="0.17",
        applies=lambda case: _is_sm12x(case) and case.quantization == "nvfp4" and case.spec.is_moe,
        flags=("--moe-backend", "marlin"),
    ),
    Rule(
        name="no_flash_attn_fp8_kv",
        engine="vllm",
        applies=lambda case: _is_sm12x(case) and case.kv_dtype == "fp8",
    ),
    Rule(name="untuned_moe", engine="vllm", applies=_has_untuned_experts),
    Rule(
        name="fp8_moe_triton",
        engine="sglang",
        applies=_has_fp8_moe_on_sm12x,
        flags=("--moe-runner-backend", "triton"),
    ),
    Rule(
        name="return_routing",
        engine="vllm",
        since="0.21",
        applies=lambda case: "routing" in case.features and case.spec.is_moe,
        flags=("--enable-return-routed-experts",),
    ),
    Rule(
        name="return_routing",
        engine="sglang",
        applies=lambda case: "routing" in case.features and case.spec.is_moe,
        flags=("--enable-return-routed-experts",),
    ),
    *(
        Rule(
            name="serve_lora",
            engine=engine,
            applies=lambda case: "lora" in case.features,
            flags=("--enable-lora",),
        )
        for engine in ("vllm", "sglang")
    ),
    *(
        rule
        for name, applies in (
            ("expert_parallel", _must_keep_experts_whole),
            ("expert_parallel_asked", _keeps_experts_whole_by_wish),
        )
        for rule in (
            Rule(name=name, engine="vllm", applies=applies, flags=("--enable-expert-parallel",)),
            Rule(name=name, engine="sglang", applies=applies),
        )
    ),
    Rule(
        name="sglang_nodes",
        engine="sglang",
        applies=lambda case: case.num_nodes > 1,
    ),
    Rule(
        name="longer_context_allowed",
        engine="sglang",
        applies=lambda case: case.context_tokens > case.spec.max_position_embeddings,
        env=(("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "1"),),
    ),
    *(
        Rule(name="yarn_static", engine=engine, applies=_is_yarn)
        for engine in ("vllm", "sglang", "llama.cpp", "transformers")
    ),
    *(
        Rule(
            name="length_contradicts",
            engine=engine,
            applies=lambda case: (
                _is_yarn(case) and case.spec.position_limit != case.spec.max_position_embeddings
            ),
        )
        for engine in ("vllm", "sglang", "llama.cpp", "transformers")
    ),
)
