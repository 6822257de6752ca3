"""One branch while it is being decoded."""

from collections.abc import Callable, Sequence

import torch

from veche.engines.embedded.detokenizer import Detokenizer
from veche.engines.embedded.router_tap import RouterTap, TokenRouting
from veche.engines.embedded.sampling import Sampler
from veche.engines.protocol import Branch, BranchResult, FinishReason, OnToken


class BranchState:
    """What a branch has said so far, and whether it is done."""

    def __init__(
        self,
        branch: Branch,
        *,
        suffix_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        device: torch.device,
        on_token: OnToken | None,
    ) -> None:
        self.branch = branch
        self.suffix_ids = suffix_ids
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._sampler = Sampler(branch.sampling, device)
        self._detokenizer = Detokenizer(decode, branch.sampling.stop)
        self._entropies: list[float] = []
        self._routing: list[TokenRouting] = []
        self._on_token = on_token

    @property
    def num_tokens(self) -> int:
        """How many tokens stand behind the trunk: suffix and decoded."""
        return len(self.suffix_ids) + len(self.token_ids)

    def step(self, logits_V: torch.Tensor, entropy: float, end_ids: frozenset[int]) -> None:
        """Pick a token, show what it completes, and notice the end."""
        token_id = self._sampler.pick(logits_V, self.token_ids)
        self.token_ids.append(token_id)
        self._entropies.append(entropy)
        if token_id in end_ids:
            self._finish("stop")
            return
        self._show(self._detokenizer.push(token_id))
        if self._detokenizer.is_stopped:
            self._finish("stop")
        elif len(self.token_ids) >= self.branch.sampling.max_new_tokens:
            self._finish("length")

    def add_routing(self, token: TokenRouting) -> None:
        """Note where the token that was just fed back was sent."""
        self._routing.append(token)

    def result(self, trunk_tokens: int, tap: RouterTap) -> BranchResult:
        """Return what the branch said and what it cost."""
        assert self.finish_reason is not None  # noqa: S101 - decode() runs until all are done
        return BranchResult(
            voice=self.branch.voice,
            text=self._detokenizer.text,
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason,
            prefilled_tokens=len(self.suffix_ids),
            reused_tokens=trunk_tokens,
            entropies=tuple(self._entropies),
            routing=tap.joined(self._routing),
        )

    def _finish(self, reason: FinishReason) -> None:
        self._show(self._detokenizer.finish())
        self.finish_reason = reason

    def _show(self, piece: str) -> None:
        if piece and self._on_token is not None:
            self._on_token(self.branch.voice, piece)
