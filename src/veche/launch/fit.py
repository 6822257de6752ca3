"""Whether a case fits its card, and the reason in one sentence."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from veche.core.language import Language
from veche.core.units import format_bytes
from veche.launch.case import Case
from veche.launch.memory import Memory, Span, memory_of
from veche.launch.phrases import phrase
from veche.planning.kv_cache import BLOCK_TOKENS, tokens_in

SMALLEST_CONTEXT_TOKENS = 2048
"""A profile that cannot hold this much is said not to fit."""
ROUND_TOKENS = 1024
"""A served length that veche chooses itself is a multiple of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict on one case.

    Attributes:
        fits: whether its sessions of its context surely fit (lowest estimate).
        reason: why, in the user's language.
        max_sessions: sequences of the served length that surely fit.
        left_bytes: of the KV cache of a card when all sessions are full.
    """

    fits: bool
    reason: str
    max_sessions: int
    left_bytes: int


def fit_of(case: Case, memory: Memory, span: Span | None, language: Language) -> Fit:
    """Judge `case` by the lowest estimate of its KV cache.

    Args:
        case: what is run.
        memory: its memory.
        span: what was learned of the overhead; see memory_of.
        language: of the reason.
    """
    limit, wanted = case.spec.position_limit, case.context_tokens
    low, high = memory.kv_available_bytes
    needed = min(wanted, limit) * _sessions_of_one_replica(case) * memory.kv_bytes_per_token_per_gpu
    possible = longest_context(case, span)
    fits = has_room(case, span)
    texts = {
        "context": wanted,
        "sessions": case.sessions,
        "needed": format_bytes(needed, language),
        "low": format_bytes(low, language),
        "high": format_bytes(high, language),
        "left": format_bytes(max(0, low - needed), language),
        "possible": possible,
        "reach": limit,
        "weights": format_bytes(memory.weight_bytes_per_gpu, language),
        "visible": format_bytes(case.gpu.visible_bytes[0], language),
    }
    key = _reason(fits=fits, wanted=wanted, limit=limit, needed=needed, interval=(low, high))
    return Fit(
        fits=fits,
        reason=phrase(key, language, **texts),
        max_sessions=most_sessions(case, span),
        left_bytes=max(0, low - needed),
    )


def has_room(case: Case, span: Span | None = None) -> bool:
    """Whether all sessions of the case's context surely fit, in memory and in its positions."""
    if case.context_tokens > case.spec.position_limit:
        return False
    memory = memory_of(case, span=span)
    share = memory.kv_available_bytes[0] // _sessions_of_one_replica(case)
    return tokens_in(share, memory.kv_bytes_per_token_per_gpu) >= case.context_tokens


def longest_context(case: Case, span: Span | None = None) -> int:
    """Return the longest sequence of which all sessions surely fit, in whole blocks; 0 for none."""
    limit = case.spec.position_limit
    if has_room(replace(case, context_tokens=limit), span):
        return limit
    blocks = _largest(
        lambda count: has_room(replace(case, context_tokens=count * BLOCK_TOKENS), span),
        limit // BLOCK_TOKENS,
    )
    return blocks * BLOCK_TOKENS


def most_sessions(case: Case, span: Span | None = None) -> int:
    """Return how many sequences of the case's length surely fit; 0 for none."""
    case = replace(case, context_tokens=min(case.context_tokens, case.spec.position_limit))
    memory = memory_of(case, span=span)
    bound = tokens_in(memory.kv_available_bytes[1], memory.kv_bytes_per_token_per_gpu)
    return _largest(
        lambda count: has_room(with_sessions(case, count), span),
        bound // case.context_tokens * case.layout.data_parallel,
    )


def with_sessions(case: Case, sessions: int) -> Case:
    """Return `case` with so many sessions, and steps that are large enough for them."""
    step = replace(case.step, sequences=max(case.step.sequences, sessions))
    return replace(case, sessions=sessions, step=step)


def useful_length(longest: int, limit: int) -> int:
    """Return the length that is served where none was asked for."""
    rounded = longest // ROUND_TOKENS * ROUND_TOKENS or longest
    return max(rounded, min(SMALLEST_CONTEXT_TOKENS, limit))


def _sessions_of_one_replica(case: Case) -> int:
    return -(-case.sessions // case.layout.data_parallel)


def _largest(holds: Callable[[int], bool], bound: int) -> int:
    """Return the largest count up to `bound` for which `holds`.

    NOTE: whatever holds for a count holds for every smaller one: overheads only grow.
    """
    low, high = 0, bound + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _reason(*, fits: bool, wanted: int, limit: int, needed: int, interval: tuple[int, int]) -> str:
    if fits:
        return "fits"
    if wanted > limit:
        return "beyond_positions"
    if interval[1] == 0:
        return "no_room_for_weights"
    return "fits_maybe" if interval[1] >= needed else "no_room_for_context"
