"""One branch while it is being decoded, or read."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from veche.engines.constraint import Constraint
from veche.engines.detokenizer import Detokenizer
from veche.engines.embedded.head_statistics import HeadLog, RowHeads
from veche.engines.embedded.observations import Observations
from veche.engines.embedded.router_control import RouterControl, RowRouting
from veche.engines.embedded.sampling import Sampler
from veche.engines.protocol import (
    Branch,
    BranchResult,
    FinishReason,
    OnRouting,
    OnToken,
    Trunk,
)


class BranchState:
    """What a branch has said so far, and whether it is done."""

    def __init__(
        self,
        branch: Branch,
        *,
        suffix_ids: Sequence[int],
        adapter_span: int,
        decode: Callable[[Sequence[int]], str],
        device: torch.device,
        observations: Observations,
        constraint: Constraint | None = None,
        on_token: OnToken | None = None,
        on_routing: OnRouting | None = None,
    ) -> None:
        self.branch = branch
        self.suffix_ids = suffix_ids
        self.adapter_span = adapter_span
        self.observations = observations
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.kept: Trunk | None = None
        self._sampler = Sampler(branch.sampling, device)
        self._detokenizer = Detokenizer(decode, branch.sampling.stop)
        self._constraint = constraint
        self._ends: list[int] = []
        self._routing: list[RowRouting] = []
        self._heads = HeadLog()
        self._on_token = on_token
        self._on_routing = on_routing

    def step(
        self,
        logits_V: torch.Tensor,
        entropy: torch.Tensor,
        hidden_CD: torch.Tensor | None,
        end_ids: frozenset[int],
    ) -> None:
        """Pick a token, show what it completes, and notice the end."""
        token_id = self._sampler.pick(self._allowed(logits_V), self.token_ids)
        self.token_ids.append(token_id)
        hidden = None if hidden_CD is None else hidden_CD[None]
        self.observations.add(logits_V[None], entropy[None], [token_id], hidden)
        if token_id in end_ids:
            self._ends.append(self._detokenizer.num_characters)
            self.finish("stop")
            return
        self._push(token_id)
        if self._constraint is not None:
            self._constraint.push(token_id)
        if self._detokenizer.is_stopped or (self._constraint and self._constraint.is_finished):
            self.finish("stop")
        elif len(self.token_ids) >= self.branch.sampling.max_new_tokens:
            self.finish("length")

    def read(self, token_ids: Sequence[int]) -> None:
        """Take a given answer whole."""
        self.token_ids = list(token_ids)
        for token_id in token_ids:
            self._push(token_id)
        self.finish("stop")

    def add_routing(self, row: RowRouting) -> None:
        """Note where tokens that were just fed were sent."""
        self._routing.append(row)
        if self._on_routing is not None:
            for ids, weights in zip(row.ids, row.weights, strict=True):
                self._on_routing(self.branch.voice, ids, weights)

    def add_heads(self, row: RowHeads) -> None:
        """Note what the heads did with tokens that were just fed."""
        self._heads.add(row)

    def finish(self, reason: FinishReason) -> None:
        """End the branch; what was held back is shown."""
        self._show(self._detokenizer.finish())
        self.finish_reason = reason

    def result(self, trunk_tokens: int, control: RouterControl) -> BranchResult:
        """Return what the branch said and what it cost."""
        assert self.finish_reason is not None  # noqa: S101 - decode() runs until all are done
        seen = self.observations
        return BranchResult(
            voice=self.branch.voice,
            text=self._detokenizer.text,
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason,
            prefilled_tokens=len(self.suffix_ids),
            reused_tokens=trunk_tokens,
            token_ends=self._token_ends,
            entropies=seen.entropies,
            routing=control.joined(self.branch, self._routing),
            logprobs=seen.logprobs,
            logits=seen.logits,
            hidden_states=seen.hidden_states,
            heads=self._heads.joined() if self.branch.capture.heads else None,
            trunk=self.kept,
        )

    def _allowed(self, logits_V: torch.Tensor) -> torch.Tensor:
        """Set the logits of tokens that can't come next to −∞."""
        if self._constraint is None:
            return logits_V
        is_allowed_V = torch.from_numpy(self._constraint.allowed()).to(logits_V.device)
        return logits_V.masked_fill(~is_allowed_V, -torch.inf)

    def _push(self, token_id: int) -> None:
        piece = self._detokenizer.push(token_id)
        self._ends.append(self._detokenizer.num_characters)
        self._show(piece)

    @property
    def _token_ends(self) -> tuple[int, ...]:
        """A stop text is cut off; what was left of a broken character came with the last token."""
        length = len(self._detokenizer.text)
        ends = [min(end, length) for end in self._ends]
        return (*ends[:-1], length) if ends else ()

    def _show(self, piece: str) -> None:
        if piece and self._on_token is not None:
            self._on_token(self.branch.voice, piece)


def last_tokens(row: RowRouting, num_tokens: int) -> RowRouting:
    """Return the last `num_tokens` of what a row's routers did."""
    start = len(row.ids) - num_tokens
    return RowRouting(
        row.ids[start:],
        row.weights[start:],
        None if row.logits is None else np.asarray(row.logits[start:]),
    )
