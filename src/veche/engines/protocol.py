"""What every engine offers: one trunk, prefilled once, and a batch of branches behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import UnsupportedError

FinishReason = Literal["stop", "length"]
OnToken = Callable[[str, str], None]
"""Called with (voice, text piece) for each piece of text as it is decoded."""


class Capability(StrEnum):
    """What an engine may be able to do; asking for a missing one is an UnsupportedError."""

    FORK = "fork"
    """Branches share the trunk's cache: nothing is prefilled twice."""
    ENTROPY = "entropy"
    """The entropy of the next-token distribution is reported for each token."""
    ROUTING = "routing"
    """Which experts each token was sent to is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a branch picks its tokens; spelled as in transformers' GenerationConfig.

    Attributes:
        max_new_tokens: the most tokens that the branch may decode.
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        repetition_penalty: 1 is none; applied to tokens that this branch has decoded.
        seed: of this branch's own random stream.
        stop: texts that end the branch; they are not part of its text.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A voice's request: what it is told behind the trunk, and how it samples."""

    voice: str
    instruction: str
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Where a branch's decoded tokens were sent.

    Attributes:
        expert_ids: [tokens, layers, top_k], the chosen experts, best first.
        weights: [tokens, layers, top_k], their routing weights.
        num_experts: how many there were to choose from.
    """

    expert_ids: NDArray[np.uint16]
    weights: NDArray[np.float16]
    num_experts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult:
    """What a branch said, and what it cost.

    Attributes:
        voice: as in the request.
        text: the decoded text, without special tokens and stop texts.
        token_ids: the decoded tokens, the end token included when there was one.
        finish_reason: "stop" (end token or stop text) or "length".
        prefilled_tokens: prompt tokens that were computed for this branch alone.
        reused_tokens: prompt tokens that it read from the trunk's cache.
        entropies: entropy of the distribution that each token was drawn from, in nats, before
            temperature and penalties; None where the engine can't tell.
        routing: of the decoded tokens that were fed back; None where the engine can't tell.
    """

    voice: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prefilled_tokens: int
    reused_tokens: int
    entropies: tuple[float, ...] | None = None
    routing: Routing | None = None


class Trunk(Protocol):
    """The shared beginning of a conversation, whose last user turn is still open."""

    @property
    def num_tokens(self) -> int:
        """How many tokens it holds."""


class Engine(Protocol):
    """A model that can be asked.

    A trunk is a conversation whose last user turn is open. `extend_trunk` appends to that turn and
    never rewrites it; a branch appends its instruction, closes the turn and answers. Texts are
    data: markup of the chat format inside them is not obeyed.
    """

    name: str
    context_tokens: int
    """The longest sequence of trunk, instruction and answer together."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this engine can do."""

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` would add to a trunk."""

    def open_trunk(self, *, system: str, user: str) -> Trunk:
        """Prefill the system message and the beginning of the user's turn, once."""

    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append `text` to the open turn; return how many tokens were prefilled."""

    def decode(
        self, trunk: Trunk, branches: Sequence[Branch], on_token: OnToken | None = None
    ) -> list[BranchResult]:
        """Decode all branches from the trunk as one batch; the trunk is left as it was."""

    def close_trunk(self, trunk: Trunk) -> None:
        """Free the trunk's memory."""


def require(engine: Engine, *needed: Capability) -> None:
    """Refuse an engine that lacks a capability.

    Raises:
        UnsupportedError: names what is missing.
    """
    if missing := sorted(set(needed) - engine.capabilities):
        raise UnsupportedError(
            f"engine {engine.name!r} cannot do: {', '.join(missing)}",
            hint="use the transformers engine, which can do all of it",
        )
