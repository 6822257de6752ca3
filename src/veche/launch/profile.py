"""A launch profile: one way to run a model, with everything that follows from it."""

from dataclasses import dataclass, fields
from typing import Any

from veche.launch.case import Case, EngineName
from veche.launch.overhead import Interval
from veche.launch.speed import Band


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One way to run a model, with everything that follows from it. Intervals are [low, high].

    Attributes:
        engine: which server.
        gpu: the card's name.
        num_gpus: cards in all.
        num_nodes: machines.
        tensor_parallel: cards that share every matrix.
        data_parallel: replicas.
        expert_parallel: whether experts are dealt out whole.
        quantization: of the weights.
        kv_dtype: of the KV cache.
        fits: whether the context that was asked for (or 2,048 tokens) surely fits.
        reason: why it fits or not, in one sentence.
        weight_bytes: of one replica.
        weight_bytes_per_gpu: on one card.
        loaded_bytes_per_gpu: the same with what the engine logs as weights beside them.
        kv_bytes_per_token: of one replica.
        kv_bytes_per_token_per_gpu: on one card.
        overhead_bytes: what the engine takes beside both, on one card.
        kv_available_bytes: what is left for the KV cache on one card, as engines log it.
        kv_available_tokens: the same in tokens of one replica.
        max_context_tokens: the longest sequence of which num_sessions surely fit at once, in
            memory (at the largest share of the card that veche gives an engine) and in the
            model's positions. What is longer fits at no share.
        max_sessions: sequences of the served context that surely fit at once.
        left_bytes: of the KV cache, when all sessions are full (lowest estimate, one card).
        context_tokens: the length that the command serves.
        num_sessions: sequences of that length at once.
        utilization: share of the card that the engine may take.
        decode_tokens_per_s: of each session, when num_sessions decode behind 1,024 tokens.
        total_tokens_per_s: of all sessions and replicas together.
        full_context_tokens_per_s: of each session behind the whole served context.
        time_to_first_token_s: for a prompt of 4,096 tokens, or of the served context if shorter.
        full_time_to_first_token_s: for a prompt of the whole served context.
        command: program and arguments.
        env: variables to set.
        comments: what a flag is there for, by flag.
        notes: what a reader must know.
        recommended: whether it is the one that veche would take.
        case: what all of this was computed from.
    """

    engine: EngineName
    gpu: str
    num_gpus: int
    num_nodes: int
    tensor_parallel: int
    data_parallel: int
    expert_parallel: bool
    quantization: str
    kv_dtype: str
    fits: bool
    reason: str
    weight_bytes: int
    weight_bytes_per_gpu: int
    loaded_bytes_per_gpu: int
    kv_bytes_per_token: int
    kv_bytes_per_token_per_gpu: int
    overhead_bytes: Interval
    kv_available_bytes: Interval
    kv_available_tokens: Interval
    max_context_tokens: int
    max_sessions: int
    left_bytes: int
    context_tokens: int
    num_sessions: int
    utilization: float
    decode_tokens_per_s: Band
    total_tokens_per_s: Band
    full_context_tokens_per_s: Band
    time_to_first_token_s: Band
    full_time_to_first_token_s: Band
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    comments: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    recommended: bool = False
    case: Case

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        names = [field.name for field in fields(self) if field.name != "case"]
        values = {name: _json(getattr(self, name)) for name in names}
        return {**values, "env": dict(self.env), "comments": dict(self.comments)}


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return [_json(item) for item in value] if isinstance(value, tuple) else value
