"""How far two readings of one text are apart: equations on logits, hidden states, routing.

Shapes: T tokens, V vocabulary, L layers, D hidden size, R layers that route, E experts, k active
experts a token. Nothing depends on the order of the two, and what equals itself is 0 apart.
"""

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from veche.experts.metrics import entropy

Floats = NDArray[np.floating]
_ROWS_AT_ONCE = 32
"""Distributions over a whole vocabulary are held in float64 for so many tokens at a time."""
LEAST_CKA_TOKENS = 4
"""The unbiased estimate of HSIC divides by T (T − 3)."""


def next_token_js(first_TV: Floats, second_TV: Floats) -> NDArray[np.float64]:
    """Return the Jensen–Shannon divergence of softmax(first), softmax(second), in bits, [T].

    JS = H((p+q)/2) − (H(p) + H(q))/2, in [0, 1] bits. Source: Lin, IEEE Trans. Inf. Theory 37
    (1991), with equal weights.
    """
    divergences = np.empty(len(first_TV))
    for start in range(0, len(first_TV), _ROWS_AT_ONCE):
        at = slice(start, start + _ROWS_AT_ONCE)
        p, q = softmax(first_TV[at]), softmax(second_TV[at])
        divergences[at] = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.asarray(np.clip(divergences / math.log(2), 0, 1))


def softmax(logits_TV: Floats) -> NDArray[np.float64]:
    """Return exp(z) / Σ exp(z) over the last axis."""
    wide = np.asarray(logits_TV, np.float64)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def cosine_distance(first_TLD: Floats, second_TLD: Floats) -> NDArray[np.float64]:
    """Return 1 − cos of two hidden states, [T, L], in [0, 2]; 1 with a state of zeros."""
    first, second = np.asarray(first_TLD, np.float64), np.asarray(second_TLD, np.float64)
    products = (first * second).sum(-1)
    lengths = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return np.asarray(np.clip(1 - products / np.where(lengths > 0, lengths, 1), 0, 2))


def linear_cka(first_TD: Floats, second_TD: Floats) -> float:
    """Return the linear centred kernel alignment of two sets of states, at most about 1.

    CKA = HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)), K = X Xᵀ, L = Y Yᵀ; unchanged when either set is
    rotated or scaled as a whole. HSIC is estimated without bias, since with fewer tokens than
    dimensions the plain estimate calls everything alike; so it may lie a little below 0 for what
    has nothing in common. NaN with fewer than 4 tokens, or where all states of a set are one.

    Sources: Kornblith et al., arXiv 1905.00414 (CKA); Song et al., JMLR 13 (2012) (HSIC without
    bias); Nguyen et al., arXiv 2010.15327 (the two together).
    """
    if len(first_TD) < LEAST_CKA_TOKENS:
        return math.nan
    first, second = _gram(first_TD), _gram(second_TD)
    own = _hsic(first, first) * _hsic(second, second)
    return _hsic(first, second) / math.sqrt(own) if own > 0 else math.nan


def routing_overlap(
    first_ids: NDArray[np.integer],
    first_weights: Floats,
    second_ids: NDArray[np.integer],
    second_weights: Floats,
    num_experts: int,
) -> NDArray[np.float64]:
    """Return |S ∩ S'| / max(|S|, |S'|) of each token's experts, [T, R], from ids [T, R, k].

    An expert of weight 0 was not chosen. With k chosen by both it is |S ∩ S'| / k.
    """
    first = _chosen(first_ids, first_weights, num_experts)
    second = _chosen(second_ids, second_weights, num_experts)
    most = np.maximum(first.sum(-1), second.sum(-1))
    return np.asarray((first & second).sum(-1) / np.maximum(most, 1))


def overlap_by_chance(first_weights: Floats, second_weights: Floats, num_experts: int) -> float:
    """Return the null of `routing_overlap`: the mean of min(|S|, |S'|) / E, which is k/E.

    Two sets of m and n experts, drawn uniformly, share m·n/E; that by max(m, n) is min(m, n)/E.
    """
    counts = [(weights > 0).sum(-1) for weights in (first_weights, second_weights)]
    return float(np.minimum(*counts).mean() / num_experts)


def _gram(states_TD: Floats) -> NDArray[np.float64]:
    """Return X Xᵀ without its diagonal; X is centred first, which HSIC does not see, for accuracy.

    The scale is taken out too, so that products of four do not overflow.
    """
    states = np.asarray(states_TD, np.float64)
    states = states - states.mean(0)
    scale = np.abs(states).max(initial=0.0)
    gram = cast("NDArray[np.float64]", (states @ states.T) / (scale**2 or 1.0))
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the unbiased HSIC of two Gram matrices [T, T] whose diagonals are 0.

    (tr(KL) + 1ᵀK1·1ᵀL1 / ((n−1)(n−2)) − 2/(n−2)·1ᵀKL1) / (n (n−3))
    """
    n = len(first)
    rows, columns = first.sum(0), second.sum(0)
    total = (first * second).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * (rows @ columns)) / (n * (n - 3)))


def _chosen(
    ids_TRk: NDArray[np.integer], weights_TRk: Floats, num_experts: int
) -> NDArray[np.bool_]:
    """Return which experts each token used, [T, R, E]."""
    chosen = np.zeros((*ids_TRk.shape[:-1], num_experts), bool)
    tokens, layers, places = np.nonzero(weights_TRk > 0)
    chosen[tokens, layers, ids_TRk[tokens, layers, places]] = True
    return chosen
