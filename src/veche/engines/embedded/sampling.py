"""Pick the next token of one branch: V vocabulary, B branches."""

from collections.abc import Collection

import torch

from veche.engines.protocol import Sampling


class Sampler:
    """One branch's way to pick, with its own random stream: neighbours change nothing."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device).manual_seed(sampling.seed)

    def pick(self, logits_V: torch.Tensor, decoded: Collection[int]) -> int:
        """Return a token id, given float32 logits and the tokens decoded so far."""
        logits_V = penalised(logits_V, decoded, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        probs_V = torch.softmax(logits_V / self._sampling.temperature, dim=-1)
        probs_V = nucleus(probs_V, self._sampling.top_p)
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


def nucleus(probs_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of likeliest tokens with mass ≥ top_p; not renormalised.

    Source: nucleus sampling, arXiv 1904.09751, section 3.1.
    """
    if top_p >= 1:
        return probs_V
    sorted_V, order_V = probs_V.sort(descending=True, stable=True)
    mass_before_V = sorted_V.cumsum(0) - sorted_V
    return torch.zeros_like(probs_V).scatter(0, order_V, sorted_V * (mass_before_V < top_p))


def entropy_nats(logits_BV: torch.Tensor) -> torch.Tensor:
    """Return H = −Σ p ln p of each row's softmax, in nats; NaN where a logit is NaN."""
    entropies_B: torch.Tensor = torch.special.entr(torch.softmax(logits_BV, dim=-1)).sum(-1)
    return entropies_B
