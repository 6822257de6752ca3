"""What comes nearest when the profile that was asked for does not fit."""

from dataclasses import dataclass, replace

from veche.checkpoint.spec import ModelSpec
from veche.core.language import Language
from veche.launch.case import ENGINES, EngineName
from veche.launch.phrases import phrase
from veche.launch.profile import Profile
from veche.launch.profiles import profiles_of
from veche.launch.recommend import best_of
from veche.launch.support import can_run
from veche.launch.wish import Wish

MORE_CARDS = (2, 4, 8)
FALLBACKS: dict[EngineName, tuple[str, ...]] = {
    "vllm": ("bf16", "fp8-block", "int8", "awq-int4"),
    "sglang": ("bf16", "fp8-block", "int8", "awq-int4"),
    "llama.cpp": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"),
    "transformers": ("bf16",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A profile that fits, and what it changes of the wish."""

    profile: Profile
    reason: str


def alternatives(spec: ModelSpec, wish: Wish) -> list[Alternative]:
    """Return what fits instead, in the order of what it costs; empty if nothing in reach fits.

    Other data types; else another engine, whose types are smaller; less context; more cards; if
    none of these alone is enough, less context with other data types.
    """
    language = wish.language
    found = []
    if chosen := best_of(_with_other_types(spec, wish)):
        found.append(_told("nearest_other_types", chosen, language))
    elif chosen := best_of(_with_other_engines(spec, wish)):
        found.append(_told("nearest_other_engine", chosen, language))
    if chosen := best_of(_with_less_context(spec, wish)):
        found.append(_told("nearest_shorter", chosen, language))
    for cards in MORE_CARDS:
        if cards > wish.num_gpus and (
            chosen := best_of(profiles_of(spec, replace(wish, num_gpus=cards, layout=None)))
        ):
            found.append(_told("nearest_more_cards", chosen, language))
            break
    return found or _with_both(spec, replace(wish, context_tokens=None))


def _with_both(spec: ModelSpec, wish: Wish) -> list[Alternative]:
    """Give up the context as well as the data types, then the engine."""
    chosen = best_of(_with_other_types(spec, wish)) or best_of(_with_other_engines(spec, wish))
    return [_told("nearest_shorter_other", chosen, wish.language)] if chosen else []


def _with_other_types(spec: ModelSpec, wish: Wish) -> list[Profile]:
    return [
        profile
        for engine in wish.engines
        if engine == "llama.cpp" or not wish.stored or can_run(engine, wish.stored.quantization)
        for profile in profiles_of(
            spec,
            replace(wish, engines=(engine,), quantizations=FALLBACKS[engine], kv_dtypes=None),
        )
    ]


def _with_other_engines(spec: ModelSpec, wish: Wish) -> list[Profile]:
    """Try the servers that were not asked for; transformers is for trying out only."""
    others = tuple(name for name in ENGINES if name not in {*wish.engines, "transformers"})
    return _with_other_types(spec, replace(wish, engines=others, layout=None))


def _with_less_context(spec: ModelSpec, wish: Wish) -> list[Profile]:
    """Keep the data types, and serve what the lowest estimate surely holds."""
    profiles = profiles_of(spec, replace(wish, context_tokens=None))
    longest = max((profile.context_tokens for profile in profiles if profile.fits), default=0)
    return [profile for profile in profiles if profile.context_tokens == longest]


def _told(key: str, profile: Profile, language: Language) -> Alternative:
    reason = phrase(
        key,
        language,
        quantization=profile.quantization,
        kv_dtype=profile.kv_dtype,
        context=profile.context_tokens,
        sessions=profile.num_sessions,
        cards=f"{profile.num_gpus} × {profile.gpu}",
        engine=profile.engine,
    )
    return Alternative(profile=profile, reason=reason)
