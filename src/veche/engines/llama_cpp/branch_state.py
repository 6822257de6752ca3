"""One branch while it is being decoded, or read: T tokens, V vocabulary, L layers, k experts."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import EngineError
from veche.engines.constraint import Constraint
from veche.engines.detokenizer import Detokenizer
from veche.engines.llama_cpp.cells import Sequence as CacheSequence
from veche.engines.llama_cpp.router_tap import RouterTap, TokenRouting
from veche.engines.llama_cpp.sampling import Sampler, entropy_nats, log_softmax
from veche.engines.protocol import (
    Branch,
    BranchResult,
    FinishReason,
    Logprobs,
    OnRouting,
    OnToken,
    Trunk,
)


class BranchState:
    """What a branch has said so far, and whether it is done.

    Args:
        branch: the request.
        sequence: its own sequence, a fork of the trunk's.
        suffix_ids: what is prefilled behind the trunk.
        decode: turns tokens into text.
        constraint: what its answer is held to.
        on_token: hears each piece of text.
        on_routing: hears where each token was sent.
    """

    def __init__(
        self,
        branch: Branch,
        *,
        sequence: CacheSequence,
        suffix_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        constraint: Constraint | None = None,
        on_token: OnToken | None = None,
        on_routing: OnRouting | None = None,
    ) -> None:
        self.branch = branch
        self.sequence = sequence
        self.suffix_ids = suffix_ids
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.is_ended_by_token = False
        self.next_logits_V: NDArray[np.float32] = np.empty(0, np.float32)
        self._trunk_tokens = sequence.num_tokens
        self._sampler = Sampler(branch.sampling)
        self._detokenizer = Detokenizer(decode, branch.sampling.stop)
        self._constraint = constraint
        self._entropies: list[float] = []
        self._logprobs: list[tuple[float, NDArray[np.int64], NDArray[np.float32]]] = []
        self._logits: list[NDArray[np.float32]] = []
        self._routing: list[TokenRouting] = []
        self._on_token = on_token
        self._on_routing = on_routing

    @property
    def wants_routing(self) -> bool:
        """Whether anyone wants to know where its tokens are sent."""
        capture = self.branch.capture
        return capture.routing or capture.router_logits or self._on_routing is not None

    def step(self, is_end: Callable[[int], bool]) -> None:
        """Pick a token from `next_logits_V`, show what it completes, and notice the end.

        Raises:
            EngineError: the logits are not numbers.
        """
        logits_V = self.next_logits_V
        entropy = self._entropy(logits_V)
        token_id = self._sampler.pick(self._allowed(logits_V), self.token_ids)
        self._note(token_id, logits_V, entropy)
        if is_end(token_id):
            self.is_ended_by_token = True
            self.finish("stop")
            return
        self._show(self._detokenizer.push(token_id))
        if self._constraint is not None:
            self._constraint.push(token_id)
        if self._detokenizer.is_stopped or (self._constraint and self._constraint.is_finished):
            self.finish("stop")
        elif len(self.token_ids) >= self.branch.sampling.max_new_tokens:
            self.finish("length")

    def read(self, token_id: int) -> None:
        """Take a given token in place of a picked one."""
        self._note(token_id, self.next_logits_V, self._entropy(self.next_logits_V))
        self._detokenizer.push(token_id)

    def finish(self, reason: FinishReason) -> None:
        """End the branch, and show what was held back."""
        self._show(self._detokenizer.finish())
        self.finish_reason = reason

    def add_routing(self, token: TokenRouting) -> None:
        """Note where the token that was just fed back was sent."""
        if self.branch.capture.routing or self.branch.capture.router_logits:
            self._routing.append(token)
        if self._on_routing is not None:
            self._on_routing(self.branch.voice, token.expert_ids, token.weights)

    def result(self, tap: RouterTap, trunk: Trunk | None) -> BranchResult:
        """Return what the branch said and what it cost."""
        assert self.finish_reason is not None  # noqa: S101 - decode() runs until all are done
        capture = self.branch.capture
        return BranchResult(
            voice=self.branch.voice,
            text=self._detokenizer.text,
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason,
            prefilled_tokens=len(self.suffix_ids),
            reused_tokens=self._trunk_tokens,
            entropies=tuple(self._entropies),
            routing=tap.joined(self._routing, with_logits=capture.router_logits)
            if capture.routing or capture.router_logits
            else None,
            logprobs=self._joined_logprobs(),
            logits=_stacked(self._logits) if capture.logits else None,
            trunk=trunk,
        )

    def _allowed(self, logits_V: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the logits of tokens that can't come next to −∞."""
        if self._constraint is None:
            return logits_V
        return np.where(self._constraint.allowed(), logits_V, np.float32(-np.inf))

    def _entropy(self, logits_V: NDArray[np.float32]) -> float:
        entropy = entropy_nats(logits_V)
        if entropy != entropy:
            raise EngineError(
                f"llama.cpp computed NaN logits for voice {self.branch.voice!r}",
                hint="export it with another --type, or run `veche verify` on the checkpoint",
            )
        return entropy

    def _note(self, token_id: int, logits_V: NDArray[np.float32], entropy: float) -> None:
        self.token_ids.append(token_id)
        self._entropies.append(entropy)
        if self.branch.capture.logits:
            self._logits.append(logits_V)
        count = self.branch.capture.logprobs
        if count is not None:
            log_probs_V = log_softmax(logits_V)
            top = np.argsort(-log_probs_V, kind="stable")[:count]
            self._logprobs.append((float(log_probs_V[token_id]), top, log_probs_V[top]))

    def _joined_logprobs(self) -> Logprobs | None:
        if self.branch.capture.logprobs is None:
            return None
        chosen, top_ids, top = zip(*self._logprobs, strict=True) if self._logprobs else ((), (), ())
        shape = (len(chosen), self.branch.capture.logprobs)
        return Logprobs(
            chosen=np.array(chosen, np.float32),
            top_ids=np.array(top_ids, np.int64).reshape(shape),
            top=np.array(top, np.float32).reshape(shape),
        )

    def _show(self, piece: str) -> None:
        if piece and self._on_token is not None:
            self._on_token(self.branch.voice, piece)


def _stacked(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)
