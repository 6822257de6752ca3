"""How far two models' predictions are apart: pure functions of their logits.

Legend: T tokens, V vocabulary. Logits are any float dtype; results are in nats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_ROWS = 128


def nll(logits_TV: Tensor, targets_T: Tensor) -> float:
    """Return the mean of −log p(target), in nats a token."""
    total = 0.0
    for logits, targets in zip(
        torch.split(logits_TV, _ROWS), torch.split(targets_T, _ROWS), strict=True
    ):
        total += float(functional.cross_entropy(logits.float(), targets, reduction="sum"))
    return total / len(targets_T)


def kl(p_logits_TV: Tensor, q_logits_TV: Tensor) -> Tensor:
    """Return KL(p‖q) = Σ p·(log p − log q) of every token, [T], in nats.

    In float64: two almost equal distributions differ by less than float32 can sum.
    """
    parts = []
    for p_rows, q_rows in zip(
        torch.split(p_logits_TV, _ROWS), torch.split(q_logits_TV, _ROWS), strict=True
    ):
        log_p = p_rows.double().log_softmax(-1)
        log_q = q_rows.double().log_softmax(-1)
        parts.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(parts)


def top1_agreement(p_logits_TV: Tensor, q_logits_TV: Tensor) -> float:
    """Return the share of tokens for which both would choose the same next token greedily."""
    return float((p_logits_TV.argmax(-1) == q_logits_TV.argmax(-1)).float().mean())


@dataclass(slots=True, kw_only=True)
class Comparison:
    """A running comparison of a model q with a reference p over windows of equal length.

    Attributes:
        num_tokens: predictions compared.
        max_abs_diff: largest difference of two logits.
        scale: largest logit of the reference, by absolute value.
    """

    num_tokens: int = 0
    max_abs_diff: float = 0.0
    scale: float = 0.0
    _kl: float = 0.0
    _kl_square: float = 0.0
    _nll_p: float = 0.0
    _nll_q: float = 0.0
    _agreement: float = 0.0

    def add(self, p_logits_TV: Tensor, q_logits_TV: Tensor, tokens_T: Tensor) -> None:
        """Add a window: both models' logits for the same tokens."""
        p, q, targets = p_logits_TV[:-1], q_logits_TV[:-1], tokens_T[1:]
        count = len(targets)
        self.num_tokens += count
        kl_T = kl(p, q)
        self._kl += float(kl_T.sum())
        self._kl_square += float(kl_T.square().sum())
        self._nll_p += nll(p, targets) * count
        self._nll_q += nll(q, targets) * count
        self._agreement += top1_agreement(p, q) * count
        self.max_abs_diff = max(self.max_abs_diff, _max_abs_diff(p, q))
        self.scale = max(self.scale, float(p.abs().max()))

    @property
    def kl(self) -> float:
        """Mean KL(p‖q), nats a token."""
        return self._kl / self.num_tokens

    @property
    def kl_standard_error(self) -> float:
        """Standard error of that mean, s/√n, taking tokens for independent."""
        variance = max(0.0, self._kl_square / self.num_tokens - self.kl**2)
        return math.sqrt(variance / self.num_tokens)

    @property
    def nll_p(self) -> float:
        """Mean NLL of the reference, nats a token."""
        return self._nll_p / self.num_tokens

    @property
    def nll_q(self) -> float:
        """Mean NLL of the model that is compared, nats a token."""
        return self._nll_q / self.num_tokens

    @property
    def top1_agreement(self) -> float:
        """Share of equal greedy choices."""
        return self._agreement / self.num_tokens


def _max_abs_diff(p: Tensor, q: Tensor) -> float:
    return max(
        float((a.float() - b.float()).abs().max())
        for a, b in zip(torch.split(p, _ROWS), torch.split(q, _ROWS), strict=True)
    )


def windows(token_ids: list[int], *, num_windows: int, window_tokens: int) -> Tensor:
    """Cut evenly spaced windows out of a text.

    Args:
        token_ids: the text.
        num_windows: how many, at most: fewer where the text is too short for them.
        window_tokens: how long each is.

    Returns:
        [windows, window_tokens]; a text shorter than one window gives one shorter window.
    """
    length = min(window_tokens, len(token_ids))
    count = max(1, min(num_windows, len(token_ids) // max(1, length)))
    starts = [index * (len(token_ids) - length) // max(1, count - 1) for index in range(count)]
    starts = [0] if count == 1 else starts
    return torch.tensor([token_ids[start : start + length] for start in starts])
