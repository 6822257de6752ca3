"""What a model shows of one text, kept token by token where that is small, and step by step.

Shapes: T tokens, S steps, C captured layers, D hidden size, L layers that route, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.engines.protocol import BranchResult, Routing
from veche.experts.metrics import expert_counts, router_entropy, top_1_margin
from veche.roles.probe.steps import step_of_tokens

CHOSEN, ENTROPY, FIRST, SECOND, HAS_DIGIT = range(5)
"""Columns of `StepReading.values`."""
_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReading:
    """One text, read once.

    Attributes:
        values: [T, 5], of each token its log-probability, the entropy of what it was drawn from,
            the log-probabilities of the likeliest two, and whether it holds a digit.
        token_step: [T], the step of each token; −1 for breaks.
        hidden: [S, C, D], mean of the states after each token of a step.
        counts: [S, L, E], tokens that each expert got; None on a dense model.
        router: [S, L, 2], mean router entropy and top-1/top-2 margin; None on a dense model.
    """

    values: NDArray[np.float32]
    token_step: NDArray[np.int16]
    hidden: NDArray[np.float16]
    counts: NDArray[np.uint16] | None
    router: NDArray[np.float32] | None

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.hidden)

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """[S], tokens of each step."""
        return np.array([(self.token_step == step).sum() for step in range(self.num_steps)])


def reading_of(result: BranchResult, owner: NDArray[np.int64], num_steps: int) -> StepReading:
    """Cut what an engine reported of a text into its steps.

    NOTE: row t of an engine's hidden states is what token t was drawn from, so the state *after*
    token t is row t + 1. What ends a text, a break or an end token, makes sure that there is one.

    Args:
        result: with log-probabilities of the likeliest two, hidden states and router logits.
        owner: the step of each character of its text.
        num_steps: S.
    """
    assert result.token_ends is not None  # noqa: S101 - by an engine with hidden states
    assert result.hidden_states is not None  # noqa: S101 - asked for
    token_step = step_of_tokens(result.token_ends, owner)
    groups = [_tokens_of(token_step, step) for step in range(num_steps)]
    last = len(token_step) - 1
    states_TCD = result.hidden_states
    after = [states_TCD[np.minimum(tokens + 1, last)] for tokens in groups]
    counts, router = _routing(result.routing, groups)
    return StepReading(
        values=_values(result),
        token_step=token_step.astype(np.int16),
        hidden=_half(np.stack([rows.mean(0) for rows in after])),
        counts=counts,
        router=router,
    )


def _tokens_of(token_step: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Return a step's tokens; of one that a neighbour's token swallowed, that token."""
    own = np.flatnonzero(token_step == step)
    if len(own):
        return own
    later = np.flatnonzero(token_step > step)
    return later[:1] if len(later) else np.array([len(token_step) - 1])


def _values(result: BranchResult) -> NDArray[np.float32]:
    assert result.logprobs is not None  # noqa: S101 - asked for
    assert result.entropies is not None  # noqa: S101 - by an engine with hidden states
    ends = result.token_ends or ()
    pieces = [result.text[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    has_digit = [any(letter.isdigit() for letter in piece) for piece in pieces]
    top = result.logprobs.top
    columns = [result.logprobs.chosen, result.entropies, top[:, 0], top[:, -1], has_digit]
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def _routing(
    routing: Routing | None, groups: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.uint16] | None, NDArray[np.float32] | None]:
    if routing is None or not len(routing.expert_ids):
        return None, None
    assert routing.logits is not None  # noqa: S101 - asked for
    # A decoded text's last token was never fed back: the router has not seen it.
    fed = len(routing.expert_ids)
    groups = [tokens[tokens < fed] for tokens in groups]
    ids = np.where(routing.weights > 0, routing.expert_ids, routing.num_experts)
    nats_TLE = routing.logits / np.float32(routing.logit_unit)
    per_token = np.stack([router_entropy(nats_TLE), top_1_margin(nats_TLE)], axis=-1)
    counts = [expert_counts(ids[tokens], routing.num_experts) for tokens in groups]
    router = [
        per_token[tokens].mean(0) if len(tokens) else np.zeros(per_token.shape[1:])
        for tokens in groups
    ]
    return np.stack(counts).astype(np.uint16), np.stack(router).astype(np.float32)


def _half(values: NDArray[np.floating]) -> NDArray[np.float16]:
    return np.asarray(np.clip(values, -_MOST, _MOST), np.float16)
