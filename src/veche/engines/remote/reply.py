"""One branch's answer while it comes in, piece by piece."""

from dataclasses import dataclass

import numpy as np

from veche.core.errors import EngineError
from veche.engines.detokenizer import Detokenizer
from veche.engines.protocol import (
    Branch,
    BranchResult,
    FinishReason,
    Logprobs,
    OnToken,
    Routing,
    Trunk,
)
from veche.engines.remote.failures import excerpt
from veche.engines.remote.wire import Choice, ChosenToken, Chunk, Usage

UNKNOWN_ID = -1
"""Stands for each decoded token whose number the server doesn't tell."""
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_SPARE_EVENTS = 8  # servers may flush what they held back in events of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A branch's prompt in tokens: computed, and read from the server's cache."""

    prefilled_tokens: int
    reused_tokens: int


class Reply:
    """What a branch has said so far, and whether it is done.

    Args:
        branch: the request.
        on_token: told of each piece of text.
        repeated: what the server says again before it goes on; it is left out.
    """

    def __init__(
        self, branch: Branch, on_token: OnToken | None = None, *, repeated: str = ""
    ) -> None:
        self.branch = branch
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.routed_experts: str | None = None
        self._on_token = on_token
        self._repeated = repeated
        self._pieces: list[str] = []
        self._detokenizer = Detokenizer(self._joined, branch.sampling.stop)
        self._ids: list[int] = []
        self._tokens: list[ChosenToken] = []
        self._num_events = 0

    @property
    def text(self) -> str:
        """What was shown."""
        return self._detokenizer.text

    @property
    def num_tokens(self) -> int:
        """How many tokens have come, by the server's count, or else at least so many."""
        counted = 0 if self.usage is None else self.usage.completion_tokens
        return max(len(self._ids), counted) or self._num_events

    @property
    def is_cut(self) -> bool:
        """Whether it ended at a stop text that the server went past."""
        return self._detokenizer.is_stopped

    @property
    def has_ids(self) -> bool:
        """Whether the server tells every token's number."""
        return len(self._ids) == self.num_tokens

    def take(self, chunk: Chunk) -> None:
        """Take an event.

        Raises:
            EngineError: the answer goes beyond what was allowed, or ends for a strange reason.
        """
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            if choice.index == 0 and self.finish_reason is None:
                self._take_choice(choice)
        if chunk.sglext is not None:
            self.routed_experts = chunk.sglext.routed_experts or self.routed_experts
            if chunk.sglext.output_ids:
                self._ids = list(chunk.sglext.output_ids[0])
        self._require_bounded()

    def cancel(self) -> None:
        """End here with what was said, unless it is said already."""
        if self.finish_reason is None:
            self._finish("cancelled")

    def logprobs(self) -> Logprobs | None:
        """Return the log-probabilities where asked for.

        Raises:
            EngineError: the server left some out.
        """
        num_likeliest = self.branch.capture.logprobs
        if num_likeliest is None:
            return None
        tops = [token.top_logprobs[:num_likeliest] for token in self._tokens]
        ids = [[token.token_id for token in top] for top in tops]
        is_whole = len(tops) == len(self._ids) and all(len(top) == num_likeliest for top in tops)
        if not is_whole or any(None in row for row in ids):
            raise EngineError(
                f"the server left out log-probabilities of voice {self.branch.voice!r}",
                hint="ask for fewer of the likeliest tokens",
            )
        shape = (len(tops), num_likeliest)
        return Logprobs(
            chosen=np.array([token.logprob for token in self._tokens], np.float32),
            top_ids=np.array(ids, np.int64).reshape(shape),
            top=np.array([[t.logprob for t in top] for top in tops], np.float32).reshape(shape),
        )

    def bill(self, estimate: Bill) -> Bill:
        """Return what the prompt cost; `estimate` stands where the server did not tell."""
        if self.usage is None:
            return estimate
        cached = self.usage.cached_tokens
        return Bill(prefilled_tokens=self.usage.prompt_tokens - cached, reused_tokens=cached)

    def result(
        self, estimate: Bill, *, routing: Routing | None = None, trunk: Trunk | None = None
    ) -> BranchResult:
        """Return what the branch said and what it cost; `trunk` is the branch itself, if kept."""
        assert self.finish_reason is not None  # noqa: S101 - decode() runs until all are done
        bill = self.bill(estimate)
        ids = self._ids if self.has_ids else [UNKNOWN_ID] * self.num_tokens
        return BranchResult(
            voice=self.branch.voice,
            text=self.text,
            token_ids=tuple(ids),
            finish_reason=self.finish_reason,
            prefilled_tokens=bill.prefilled_tokens,
            reused_tokens=bill.reused_tokens,
            routing=routing,
            logprobs=self.logprobs(),
            trunk=trunk,
        )

    def _take_choice(self, choice: Choice) -> None:
        tokens = (choice.logprobs and choice.logprobs.content) or []
        self._tokens += tokens
        told = [token.token_id for token in tokens]
        ids = choice.token_ids if choice.token_ids is not None else told
        self._ids += [number for number in ids if number is not None]
        delta = choice.delta
        if delta.content or delta.reasoning or delta.reasoning_content or ids:
            self._num_events += 1
        self.routed_experts = choice.routed_experts or self.routed_experts
        if piece := self._without_repeated(delta.content or ""):
            self._pieces.append(piece)
            self._show(self._detokenizer.push(len(self._pieces) - 1))
        if self._detokenizer.is_stopped:
            self._finish("stop")
        elif choice.finish_reason is not None:
            if choice.finish_reason not in _REASONS:
                raise EngineError(
                    f"the server ended the answer of voice {self.branch.voice!r} because of "
                    f"{excerpt(choice.finish_reason)!r}",
                    hint="see the server's log",
                )
            self._finish(_REASONS[choice.finish_reason])

    def _without_repeated(self, piece: str) -> str:
        if not self._repeated:
            return piece
        common, self._repeated = self._repeated[: len(piece)], self._repeated[len(piece) :]
        if not piece.startswith(common):
            raise EngineError("the server does not go on with the answer that it was given")
        return piece[len(common) :]

    def _require_bounded(self) -> None:
        limit = self.branch.sampling.max_new_tokens
        if self._num_events > limit + _SPARE_EVENTS or len(self._ids) > limit + _SPARE_EVENTS:
            raise EngineError(
                f"the server goes on after the {limit} tokens that voice "
                f"{self.branch.voice!r} may say",
                hint="it does not obey max_tokens: use another server",
            )

    def _joined(self, indices: object) -> str:
        return "".join(self._pieces[index] for index in indices)  # type: ignore[attr-defined]

    def _finish(self, reason: FinishReason) -> None:
        self._show(self._detokenizer.finish())
        self.finish_reason = reason

    def _show(self, piece: str) -> None:
        if piece and self._on_token is not None:
            self._on_token(self.branch.voice, piece)
