"""How far two models' predictions are apart: pure functions of their logits.

Legend: T tokens, V vocabulary, C a part of the vocabulary. Logits are any float dtype; results are
in nats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 128


class PairSums:
    """Two models' predictions for the same T tokens, from parts of the vocabulary.

    With a = log-weights of p and b of q, over any partition of the vocabulary,
    KL(p‖q) = Σ eᵃ(a − b) / Σ eᵃ − (lse a − lse b) and NLL = lse − (logit of the target). The sums
    are kept relative to the largest logit seen so far (online softmax, arXiv:1805.02867), in
    float64: two almost equal distributions differ by less than float32 can sum.
    """

    def __init__(self, targets_T: Tensor) -> None:
        self._targets_T = targets_T
        zeros_T = torch.zeros(len(targets_T), dtype=torch.float64, device=targets_T.device)
        self._p, self._q = _LogSum(zeros_T), _LogSum(zeros_T)
        self._weighted_T, self._square_T = zeros_T.clone(), zeros_T.clone()
        self._square_diff_T = zeros_T.clone()
        self._max_abs_diff, self._scale = zeros_T.new_zeros(()), zeros_T.new_zeros(())

    def add(self, p_logits_TC: Tensor, q_logits_TC: Tensor, *, first: int = 0) -> None:
        """Add the logits of the vocabulary's entries `first`, `first` + 1, …; parts in order."""
        for start in range(0, len(self._targets_T), _ROWS):
            rows = slice(start, start + _ROWS)
            p_TC, q_TC = p_logits_TC[rows].double(), q_logits_TC[rows].double()
            diff_TC = p_TC - q_TC
            self._max_abs_diff = torch.maximum(self._max_abs_diff, diff_TC.abs().max())
            self._scale = torch.maximum(self._scale, p_TC.abs().max())
            self._square_T[rows] += p_TC.square().sum(-1)
            self._square_diff_T[rows] += diff_TC.square().sum(-1)
            weights_TC, decay_T = self._p.add(p_TC, rows, first, self._targets_T[rows])
            self._q.add(q_TC, rows, first, self._targets_T[rows])
            self._weighted_T[rows] *= decay_T
            self._weighted_T[rows] += (weights_TC * diff_TC).sum(-1)

    @property
    def kl(self) -> Tensor:
        """KL(p‖q) of every token."""
        kl_T: Tensor = self._weighted_T / self._p.sum_T - (self._p.log_sum - self._q.log_sum)
        return kl_T

    @property
    def nll_p(self) -> Tensor:
        """−log p(target) of every token."""
        return self._p.log_sum - self._p.target_T

    @property
    def nll_q(self) -> Tensor:
        """−log q(target) of every token."""
        return self._q.log_sum - self._q.target_T

    @property
    def is_same(self) -> Tensor:
        """Whether both would choose the same next token greedily."""
        return self._p.best_T == self._q.best_T

    @property
    def relative_error(self) -> Tensor:
        """‖p − q‖ / ‖p‖ of every token's logits."""
        error_T: Tensor = (self._square_diff_T / self._square_T).sqrt()
        return error_T

    @property
    def max_abs_diff(self) -> float:
        """Largest difference of two logits; NaN where there is one."""
        return float(self._max_abs_diff)

    @property
    def scale(self) -> float:
        """Largest logit of p, by absolute value."""
        return float(self._scale)


class _LogSum:
    """Σ exp(logit) of every token, the logit of its target, and its best entry, in one pass."""

    def __init__(self, zeros_T: Tensor) -> None:
        self._max_T = zeros_T - math.inf
        self.sum_T, self.target_T = zeros_T.clone(), zeros_T.clone()
        self.best_T = torch.full_like(zeros_T, -1, dtype=torch.long)

    @property
    def log_sum(self) -> Tensor:
        """Log of the sum."""
        log_sum_T: Tensor = self._max_T + self.sum_T.log()
        return log_sum_T

    def add(
        self, logits_TC: Tensor, rows: slice, first: int, targets_T: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add a part; return exp(logit − new maximum), and what older sums are multiplied by."""
        top_T, index_T = logits_TC.max(-1)
        old_T = self._max_T[rows]
        self.best_T[rows] = torch.where(top_T > old_T, index_T + first, self.best_T[rows])
        new_T = torch.maximum(old_T, top_T)
        decay_T, weights_TC = (old_T - new_T).exp(), (logits_TC - new_T[:, None]).exp()
        self.sum_T[rows] = self.sum_T[rows] * decay_T + weights_TC.sum(-1)
        self._max_T[rows] = new_T
        local_T = targets_T - first
        is_inside_T = (local_T >= 0) & (local_T < logits_TC.shape[1])
        found_T = logits_TC.gather(1, local_T.clamp(0, logits_TC.shape[1] - 1)[:, None])[:, 0]
        self.target_T[rows] = torch.where(is_inside_T, found_T, self.target_T[rows])
        return weights_TC, decay_T


@dataclass(slots=True, kw_only=True)
class Comparison:
    """A running comparison of a model q with a reference p over windows of text.

    Attributes:
        num_tokens: predictions compared.
        max_abs_diff: largest difference of two logits; NaN where there is one.
        scale: largest logit of the reference, by absolute value.
    """

    num_tokens: int = 0
    max_abs_diff: float = 0.0
    scale: float = 0.0
    _kl: float = 0.0
    _kl_square: float = 0.0
    _nll_p: float = 0.0
    _nll_q: float = 0.0
    _num_same: int = 0

    def add(self, p_logits_TV: Tensor, q_logits_TV: Tensor, tokens_T: Tensor) -> None:
        """Add a window: both models' logits for the same tokens."""
        sums = PairSums(tokens_T[1:])
        sums.add(p_logits_TV[:-1], q_logits_TV[:-1])
        self.add_sums(sums)

    def add_sums(self, sums: PairSums) -> None:
        """Add predictions whose whole vocabulary was summed."""
        kl_T = sums.kl
        self.num_tokens += len(kl_T)
        self._kl += float(kl_T.sum())
        self._kl_square += float(kl_T.square().sum())
        self._nll_p += float(sums.nll_p.sum())
        self._nll_q += float(sums.nll_q.sum())
        self._num_same += int(sums.is_same.sum())
        self.max_abs_diff = larger(self.max_abs_diff, sums.max_abs_diff)
        self.scale = larger(self.scale, sums.scale)

    @property
    def kl(self) -> float:
        """Mean KL(p‖q), nats a token."""
        return self._kl / self.num_tokens

    @property
    def kl_standard_error(self) -> float:
        """Standard error of that mean, s/√n, taking tokens for independent."""
        variance = larger(0.0, self._kl_square / self.num_tokens - self.kl**2)
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
        return self._num_same / self.num_tokens


def larger(first: float, second: float) -> float:
    """Return the larger of two numbers; NaN if either is one, where `max` may hide it."""
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def largest(values: Tensor) -> float:
    """Return the largest of some numbers: NaN if there is one, 0 if there are none."""
    return float(values.max()) if len(values) else 0.0


def relative_error(output_TH: Tensor, expected_TH: Tensor) -> Tensor:
    """Return ‖output − expected‖ / ‖expected‖ of every token, in float64."""
    expected_TH = expected_TH.double()
    error_T: Tensor = (output_TH.double() - expected_TH).norm(dim=-1) / expected_TH.norm(dim=-1)
    return error_T


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
