"""What was seen of one branch, token by token: T tokens, V vocabulary, C captured layers, D hidden.

Everything is of the distribution that the model gave, before temperature, penalties and grammar.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from veche.engines.protocol import Capture, Logprobs

_ROWS_AT_ONCE = 4
"""Rows over a vocabulary that stay in a processor's cache from one pass over them to the next."""


class Observations:
    """One branch's log-probabilities, logits, entropies and hidden states."""

    def __init__(self, capture: Capture, *, vocab_size: int, hidden_size: int) -> None:
        self._capture = capture
        self._vocab_size = vocab_size
        self._hidden_size = hidden_size
        self._entropies: list[torch.Tensor] = []
        self._chosen: list[torch.Tensor] = []
        self._top: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._logits: list[torch.Tensor] = []
        self._hidden: list[torch.Tensor] = []

    def add(
        self,
        logits_TV: torch.Tensor,
        entropies_T: torch.Tensor,
        token_ids_T: Sequence[int],
        hidden_TCD: torch.Tensor | None,
    ) -> None:
        """Note what some tokens were drawn from, and which they are."""
        self._entropies.append(entropies_T)
        if self._capture.logprobs is not None:
            chosen = torch.tensor(token_ids_T, device=logits_TV.device)[:, None]
            num_top = min(self._capture.logprobs, self._vocab_size)
            for logits_BV, chosen_B1 in zip(
                torch.split(logits_TV, _ROWS_AT_ONCE),
                torch.split(chosen, _ROWS_AT_ONCE),
                strict=True,
            ):
                logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
                self._chosen.append(logprobs_BV.gather(1, chosen_B1)[:, 0])
                top, top_ids = logprobs_BV.topk(num_top, dim=-1)
                self._top.append((top, top_ids))
        if self._capture.logits:
            self._logits.append(logits_TV)
        if hidden_TCD is not None and self._capture.hidden_layers:
            self._hidden.append(hidden_TCD)

    @property
    def entropies(self) -> tuple[float, ...]:
        """Of each token's distribution, in nats."""
        return tuple(torch.cat(self._entropies).tolist()) if self._entropies else ()

    @property
    def logprobs(self) -> Logprobs | None:
        """None where they were not asked for."""
        num_top = self._capture.logprobs
        if num_top is None:
            return None
        shape = (0, min(num_top, self._vocab_size))
        return Logprobs(
            chosen=_joined(self._chosen, (0,)),
            top=_joined([values for values, _ in self._top], shape),
            top_ids=_joined([ids for _, ids in self._top], shape).astype(np.int64),
        )

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """[T, V]; None where they were not asked for."""
        return _joined(self._logits, (0, self._vocab_size)) if self._capture.logits else None

    @property
    def hidden_states(self) -> NDArray[np.float32] | None:
        """[T, C, D]; None where no layer was asked for."""
        num_layers = len(self._capture.hidden_layers)
        if not num_layers:
            return None
        return _joined(self._hidden, (0, num_layers, self._hidden_size))


def entropy_nats(logits_BV: torch.Tensor) -> torch.Tensor:
    """Return H = −Σ p ln p of each row's softmax p, in nats; NaN where a logit is NaN."""
    return torch.cat([_entropy(rows) for rows in torch.split(logits_BV, _ROWS_AT_ONCE)])


def _entropy(logits_BV: torch.Tensor) -> torch.Tensor:
    logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
    # A logit of −∞ has probability 0, and 0 · ln 0 is 0.
    entropies_B: torch.Tensor = -(logprobs_BV.exp() * logprobs_BV.clamp(min=-1e30)).sum(-1)
    return entropies_B.clamp(min=0)


def _joined(parts: Sequence[torch.Tensor], empty_shape: tuple[int, ...]) -> NDArray[Any]:
    if not parts:
        return np.empty(empty_shape, np.float32)
    return torch.cat(list(parts)).cpu().numpy()
