"""Which profile veche would take, and the nearest that fits when the one asked for does not."""

import math
from collections.abc import Sequence
from dataclasses import replace

from veche.core.language import Language
from veche.launch.phrases import phrase
from veche.launch.profile import Profile
from veche.launch.support import utilizations

WEIGHT_LOSS = {
    "bf16": 0.0, "F16": 0.0, "BF16": 0.0, "Q8_0": 0.9, "fp8-block": 1.0, "fp8-tensor": 1.2,
    "int8": 1.2, "Q6_K": 1.5, "Q5_K_M": 2.5, "Q5_K_S": 3.0, "Q5_1": 3.3, "Q5_0": 3.5,
    "Q4_K_M": 5.0, "awq-int4": 5.0, "gptq-int4": 5.5, "nvfp4": 5.5, "IQ4_NL": 5.6, "IQ4_XS": 5.8,
    "mxfp4": 6.0, "Q4_K_S": 6.0, "Q4_1": 6.5, "Q4_0": 7.0, "Q3_K_L": 9.0, "Q3_K_M": 10.0,
    "Q3_K_S": 12.0, "Q2_K": 20.0, "Q2_K_S": 22.0,
}  # fmt: skip
"""An order of preference: how much worse a quantisation makes a model, from what is published.

Not a measurement of this model: `veche verify` measures.
"""
KV_LOSS = {"bf16": 0.0, "f16": 0.0, "q8_0": 0.8, "fp8": 1.5, "q4_0": 6.0}
ENGINE_ORDER = {"vllm": 0.0, "sglang": 0.1, "llama.cpp": 0.8, "transformers": 3.0}
"""Between equals: vLLM batches a council's branches best; transformers is for trying out."""
TIGHT = 0.5
"""Added where an engine must take more of the card than it usually does."""
USEFUL_CONTEXT_TOKENS = 32768
SHORT = 2.0
"""Added for each halving of the context below the useful one."""


def mark_recommended(profiles: Sequence[Profile], language: Language) -> list[Profile]:
    """Mark the least lossy profile that fits, with its reason; none is marked if none fits."""
    best = best_of(profiles)
    return [
        replace(profile, recommended=True, reason=reason_for(profile, language))
        if profile is best
        else profile
        for profile in profiles
    ]


def recommended(profiles: Sequence[Profile]) -> Profile | None:
    """Return the marked profile."""
    return next((profile for profile in profiles if profile.recommended), None)


def best_of(profiles: Sequence[Profile]) -> Profile | None:
    """Return the profile that fits with the least loss; the faster of equals."""
    fitting = [profile for profile in profiles if profile.fits]
    return min(fitting, key=_order, default=None)


def reason_for(profile: Profile, language: Language) -> str:
    """Say why a profile is recommended."""
    slow, fast = profile.decode_tokens_per_s
    return phrase(
        "recommended_best",
        language,
        quantization=profile.quantization,
        kv_dtype=profile.kv_dtype,
        context=profile.context_tokens,
        sessions=profile.num_sessions,
        cards=f"{profile.num_gpus} × {profile.gpu}",
        slow=f"{slow:.0f}",
        fast=f"{fast:.0f}",
    )


def _order(profile: Profile) -> tuple[float, float]:
    usual = utilizations(profile.engine, profile.case.engine_version)[0]
    tight = TIGHT if profile.utilization > usual else 0.0
    useful = min(USEFUL_CONTEXT_TOKENS, profile.case.spec.position_limit)
    short = SHORT * max(0.0, math.log2(useful / max(1, profile.max_context_tokens)))
    loss = WEIGHT_LOSS[profile.quantization] + KV_LOSS[profile.kv_dtype]
    return loss + ENGINE_ORDER[profile.engine] + tight + short, -profile.decode_tokens_per_s[0]
