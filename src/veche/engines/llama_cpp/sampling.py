"""Pick the next token of one branch: V vocabulary."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from veche.engines.protocol import Sampling

FloatArray = NDArray[np.float32]


class Sampler:
    """One branch's way to pick, with its own random stream: neighbours change nothing."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(
            sampling.seed % (1 << 64)
        )  # numpy takes no negative one

    def pick(self, logits_V: FloatArray, decoded: Collection[int]) -> int:
        """Return a token id, given float32 logits and the tokens decoded so far."""
        logits_V = penalised(logits_V, decoded, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        probs_V = warped(logits_V, self._sampling)
        mass_V = probs_V.cumsum()
        drawn = self._random.random() * mass_V[-1]
        # The first token whose cumulated mass is beyond the draw: one with mass, therefore.
        return int(np.searchsorted(mass_V, drawn, side="right"))


def penalised(
    logits_V: FloatArray, decoded: Collection[int], repetition_penalty: float
) -> FloatArray:
    """Divide positive logits of decoded tokens by the penalty, multiply negative ones.

    Source: CTRL, arXiv 1909.05858, equation in section 4.1, as transformers applies it.
    """
    if repetition_penalty == 1 or not decoded:
        return logits_V
    ids = np.array(sorted(set(decoded)))
    seen = logits_V[ids]
    logits_V = logits_V.copy()
    logits_V[ids] = np.where(seen > 0, seen / repetition_penalty, seen * repetition_penalty)
    return logits_V


def warped(logits_V: FloatArray, sampling: Sampling) -> NDArray[np.float64]:
    """Return what a token is drawn from: temperature, top-k, nucleus, min-p, in this order.

    The result is not renormalised. Source: the order is that of transformers' generate();
    nucleus: arXiv 1904.09751, section 3.1; min-p: arXiv 2407.01082, section 3.
    """
    probs_V = softmax(logits_V / sampling.temperature)
    is_cut = 0 < sampling.top_k < len(probs_V) or sampling.top_p < 1
    if is_cut:
        order_V = np.argsort(-probs_V, kind="stable")
        sorted_V = probs_V[order_V]
        if sampling.top_k:
            sorted_V[sampling.top_k :] = 0
        sorted_V /= sorted_V.sum()
        if sampling.top_p < 1:
            sorted_V *= sorted_V.cumsum() - sorted_V < sampling.top_p
        probs_V = np.zeros_like(probs_V)
        probs_V[order_V] = sorted_V
    if sampling.min_p:
        probs_V = np.where(probs_V >= sampling.min_p * probs_V.max(), probs_V, 0)
    return probs_V


def softmax(logits_V: FloatArray) -> NDArray[np.float64]:
    """Return exp(x − max x) / Σ exp(x − max x), normalised in double precision."""
    exp_V = np.exp(logits_V - logits_V.max()).astype(np.float64)
    probs_V: NDArray[np.float64] = exp_V / exp_V.sum()
    return probs_V


def log_softmax(logits_V: FloatArray) -> FloatArray:
    """Return x − max x − ln Σ exp(x − max x)."""
    shifted_V = logits_V - logits_V.max()
    log_probs_V: FloatArray = shifted_V - np.float32(np.log(np.exp(shifted_V).sum(dtype=float)))
    return log_probs_V


def entropy_nats(logits_V: FloatArray) -> float:
    """Return the softmax's H = ln Σ exp(y) − Σ p y, y = x − max x, in nats; NaN with a NaN."""
    shifted_V = np.maximum(logits_V - logits_V.max(), np.float32(-1e30))  # of −inf, p y is 0
    exp_V = np.exp(shifted_V)
    total = exp_V.sum(dtype=float)
    return float(np.log(total) - np.dot(exp_V, shifted_V) / total)
