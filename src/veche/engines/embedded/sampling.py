"""Pick the next token of one branch: V vocabulary, B branches."""

from collections.abc import Collection

import torch

from veche.engines.protocol import Sampling

_NUM_SEEDS = 1 << 64
"""Torch takes no others."""


class Sampler:
    """One branch's way to pick, with its own random stream: neighbours change nothing."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device).manual_seed(sampling.seed % _NUM_SEEDS)

    def pick(self, logits_V: torch.Tensor, decoded: Collection[int]) -> int:
        """Return a token id, given float32 logits and the tokens decoded so far."""
        asked = self._sampling
        logits_V = penalised(logits_V, decoded, asked.repetition_penalty)
        if asked.temperature == 0:
            return int(logits_V.argmax())
        probs_V = torch.softmax(likeliest(logits_V / asked.temperature, asked.top_k), dim=-1)
        probs_V = at_least(nucleus(probs_V, asked.top_p), asked.min_p)
        return int(torch.multinomial(probs_V, 1, generator=self._generator))


def penalised(
    logits_V: torch.Tensor, decoded: Collection[int], repetition_penalty: float
) -> torch.Tensor:
    """Divide positive logits of decoded tokens by the penalty, multiply negative ones.

    Source: CTRL, arXiv 1909.05858, equation in section 4.1, as transformers applies it.
    """
    if repetition_penalty == 1 or not decoded:
        return logits_V
    ids = torch.tensor(sorted(set(decoded)), device=logits_V.device)
    seen = logits_V[ids]
    seen = torch.where(seen > 0, seen / repetition_penalty, seen * repetition_penalty)
    return logits_V.index_copy(0, ids, seen)


def likeliest(logits_V: torch.Tensor, top_k: int) -> torch.Tensor:
    """Set all but the `top_k` largest logits to −∞; 0 leaves all. Ties with the last one stay.

    Source: top-k sampling, arXiv 1805.04833, section 5.4, as transformers applies it.
    """
    if not 0 < top_k < len(logits_V):
        return logits_V
    return logits_V.masked_fill(logits_V < logits_V.topk(top_k).values[-1], -torch.inf)


def at_least(probs_V: torch.Tensor, min_p: float) -> torch.Tensor:
    """Zero probabilities below min_p · max(p); not renormalised.

    Source: min-p sampling, arXiv 2407.01082, section 4.
    """
    return probs_V if min_p == 0 else probs_V * (probs_V >= min_p * probs_V.max())


def nucleus(probs_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of likeliest tokens with mass ≥ top_p; not renormalised.

    Source: nucleus sampling, arXiv 1904.09751, section 3.1.
    """
    if top_p >= 1:
        return probs_V
    sorted_V, order_V = probs_V.sort(descending=True, stable=True)
    mass_before_V = sorted_V.cumsum(0) - sorted_V
    return torch.zeros_like(probs_V).scatter(0, order_V, sorted_V * (mass_before_V < top_p))
