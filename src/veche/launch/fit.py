"""Whether a case fits its card, and the reason in one sentence."""

from dataclasses import dataclass

from veche.core.language import Language
from veche.core.units import format_bytes
from veche.launch.case import Case, position_limit
from veche.launch.memory import Memory
from veche.launch.phrases import phrase
from veche.planning.kv_cache import tokens_in

SMALLEST_CONTEXT_TOKENS = 2048
"""A profile that cannot hold this much is said not to fit."""
ROUND_TOKENS = 1024
"""A served length that veche chooses itself is a multiple of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict on one case.

    Attributes:
        fits: whether what was asked for surely fits (lowest estimate).
        reason: why, in the user's language.
        max_context_tokens: the longest sequence of which all sessions surely fit.
        max_sessions: sequences of the served length that surely fit.
        left_bytes: of the KV cache of a card when all sessions are full.
        served_tokens: the length that the command shall serve.
    """

    fits: bool
    reason: str
    max_context_tokens: int
    max_sessions: int
    left_bytes: int
    served_tokens: int


def fit_of(case: Case, memory: Memory, asked_tokens: int | None, language: Language) -> Fit:
    """Judge `case` by the lowest estimate of its KV cache.

    Args:
        case: what is run.
        memory: its memory.
        asked_tokens: the context that must fit; None asks for the smallest useful one.
        language: of the reason.
    """
    limit, replicas = position_limit(case.spec), case.layout.data_parallel
    each = memory.kv_bytes_per_token_per_gpu
    per_replica = -(-case.sessions // replicas)
    low, high = memory.kv_available_bytes
    possible = min(limit, tokens_in(low // per_replica, each))
    wanted = asked_tokens or SMALLEST_CONTEXT_TOKENS
    served = asked_tokens or max(_rounded(possible), min(SMALLEST_CONTEXT_TOKENS, limit))
    needed = min(wanted, limit) * per_replica * each
    fits = possible >= min(wanted, limit) and wanted <= limit
    texts = {
        "context": served if fits else wanted,
        "sessions": case.sessions,
        "needed": format_bytes(needed),
        "low": format_bytes(low),
        "high": format_bytes(high),
        "left": format_bytes(max(0, low - served * per_replica * each)),
        "possible": possible,
        "reach": limit,
        "weights": format_bytes(memory.weight_bytes_per_gpu),
        "visible": format_bytes(case.gpu.visible_bytes[0]),
    }
    key = _reason(fits=fits, wanted=wanted, limit=limit, needed=needed, interval=(low, high))
    return Fit(
        fits=fits,
        reason=phrase(key, language, **texts),
        max_context_tokens=possible,
        max_sessions=tokens_in(low, each) // max(1, min(served, limit)) * replicas,
        left_bytes=max(0, low - min(served, limit) * per_replica * each),
        served_tokens=min(served, limit),
    )


def _reason(*, fits: bool, wanted: int, limit: int, needed: int, interval: tuple[int, int]) -> str:
    if fits:
        return "fits"
    if wanted > limit:
        return "beyond_positions"
    if interval[1] == 0:
        return "no_room_for_weights"
    return "fits_maybe" if interval[1] >= needed else "no_room_for_context"


def _rounded(tokens: int) -> int:
    return tokens // ROUND_TOKENS * ROUND_TOKENS or tokens
