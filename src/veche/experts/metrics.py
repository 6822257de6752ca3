"""What a routing says: equations on expert ids [T, L, k] and weights [T, L, k].

Shapes: T tokens, L layers with experts, E experts, k active experts a token. Logarithms are
natural; a normalised entropy lies in [0, 1]. Experts have numbers and no topics: most of what
looks like a topic is syntax, so every figure is stated next to its null, the value that routing
uniformly at random would give.

A token of top-k routing has k experts, and each of them counts: a load is divided by T·k, an
activation rate by T. An id of E or above is no expert: the token left that place unused.
"""

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]
Floats = NDArray[np.float64]


def expert_counts(ids_TLk: Ints, num_experts: int) -> NDArray[np.int64]:
    """Return counts [L, E]: n_le = how many tokens layer l sent to expert e."""
    layers = [
        np.bincount(ids_TLk[:, layer].ravel(), minlength=num_experts)[:num_experts]
        for layer in range(ids_TLk.shape[1])
    ]
    return np.array(layers, dtype=np.int64).reshape(len(layers), num_experts)


def load(counts_LE: Ints) -> Floats:
    """Return f_le = n_le / Σ_e n_le, [L, E]; the null is 1/E. Zeros where nothing was routed.

    Source: f_i of Switch Transformers, arXiv 2101.03961, eq. 5, for k experts a token.
    """
    total_L1 = counts_LE.sum(-1, keepdims=True)
    return np.asarray(counts_LE / np.maximum(total_L1, 1), dtype=np.float64)


def activation_rate(counts_LE: Ints, num_tokens: int) -> Floats:
    """Return r_le = n_le / T, the share of tokens that expert e was active for, [L, E].

    The null is k/E. Source: domain specialisation, OLMoE, arXiv 2409.02060, section 5.3.
    """
    return np.asarray(counts_LE / max(num_tokens, 1), dtype=np.float64)


def load_entropy(load_LE: Floats) -> Floats:
    """Return −Σ_e f_e ln f_e / ln E for each layer, [L]; 1 is uniform, 0 is one expert."""
    num_experts = load_LE.shape[-1]
    if num_experts < 2:
        return np.zeros(load_LE.shape[:-1])
    return entropy(load_LE) / math.log(num_experts)


def load_cv(load_LE: Floats) -> Floats:
    """Return the coefficient of variation, std_e(f) / mean_e(f), [L]; 0 is uniform.

    Source: the load of arXiv 1701.06538, section 4 (they penalise its square).
    """
    mean_L = load_LE.mean(-1)
    return np.asarray(load_LE.std(-1) / np.where(mean_L > 0, mean_L, 1))


def expected_cv(num_tokens: int, top_k: int, num_experts: int) -> float:
    """Return the null of `load_cv`: √((1 − k/E) / (T·k/E)) for uniform, independent routing."""
    rate = top_k / num_experts
    return math.sqrt((1 - rate) / (max(num_tokens, 1) * rate))


def max_violation(load_LE: Floats) -> Floats:
    """Return MaxVio = max_e f / mean_e f − 1 for each layer, [L]; 0 is uniform, E/k − 1 the most.

    Source: auxiliary-loss-free load balancing, arXiv 2408.15664, section 4.1.
    """
    mean_L = load_LE.mean(-1)
    return np.asarray(load_LE.max(-1) / np.where(mean_L > 0, mean_L, 1) - (mean_L > 0))


def dead_experts(counts_LE: Ints) -> NDArray[np.int64]:
    """Return how many experts of each layer no token was sent to, [L]."""
    return np.asarray((counts_LE == 0).sum(-1), dtype=np.int64)


def expected_dead_experts(num_tokens: int, top_k: int, num_experts: int) -> float:
    """Return the null of `dead_experts`: E·(1 − k/E)^T for uniform, independent routing."""
    return num_experts * (1 - top_k / num_experts) ** num_tokens


def token_entropy(weights_TLk: NDArray[np.floating]) -> Floats:
    """Return the entropy of each token's weights over its experts, by ln k, [T, L].

    H_tl = −Σ_j w_j ln w_j / ln k with w renormalised over the k experts; 1 means that all k weigh
    the same, 0 that one decides alone (and k = 1 is always 0).
    """
    top_k = weights_TLk.shape[-1]
    if top_k < 2:
        return np.zeros(weights_TLk.shape[:-1])
    weights = weights_TLk.astype(np.float64)
    total = weights.sum(-1, keepdims=True)
    return entropy(weights / np.where(total > 0, total, 1)) / math.log(top_k)


def router_entropy(logits_TLE: NDArray[np.floating]) -> Floats:
    """Return the entropy of the router's softmax over all E experts, by ln E, [T, L]."""
    return load_entropy(softmax(logits_TLE))


def top_k_mass(logits_TLE: NDArray[np.floating], top_k: int) -> Floats:
    """Return Σ of the k largest of softmax(logits), [T, L]; the null, equal logits, is k/E."""
    ordered = np.sort(softmax(logits_TLE), axis=-1)
    return np.asarray(ordered[..., -top_k:].sum(-1))


def top_1_margin(logits_TLE: NDArray[np.floating]) -> Floats:
    """Return the largest of softmax(logits) minus the second largest, [T, L]; 0 is a tie."""
    ordered = np.sort(softmax(logits_TLE), axis=-1)
    if ordered.shape[-1] < 2:
        return np.asarray(ordered[..., -1])
    return np.asarray(ordered[..., -1] - ordered[..., -2])


def coactivation(ids_TLk: Ints, num_experts: int) -> Floats:
    """Return N_ij / N_i for each layer, [L, E, E]: of expert i's tokens, how many had j too.

    The diagonal is 1; a row of an expert that no token had is 0. The null off the diagonal is
    (k − 1)/(E − 1). Source: expert co-activation, OLMoE, arXiv 2409.02060, section 5.2.
    """
    num_tokens, num_layers, _ = ids_TLk.shape
    shares = np.empty((num_layers, num_experts, num_experts))
    tokens = np.arange(num_tokens)[:, None]
    for layer in range(num_layers):
        has_TE = np.zeros((num_tokens, num_experts + 1), np.float32)
        has_TE[tokens, np.minimum(ids_TLk[:, layer], num_experts)] = 1
        both_EE = (has_TE.T @ has_TE)[:num_experts, :num_experts].astype(np.float64)
        shares[layer] = both_EE / np.maximum(both_EE.diagonal()[:, None], 1)
    return shares


def saturation(early_TLk: Ints, final_TLk: Ints) -> Floats:
    """Return how many of the final checkpoint's experts an earlier one chose already, [L].

    mean over the same tokens of |S_t(early) ∩ S_t(final)| / k; the null is k/E.
    Source: router saturation, OLMoE, arXiv 2409.02060, section 5.1.
    """
    if early_TLk.shape != final_TLk.shape:
        raise ValueError(f"these are not the same tokens: {early_TLk.shape}, {final_TLk.shape}")
    is_common_TLk = (final_TLk[..., :, None] == early_TLk[..., None, :]).any(-1)
    return np.asarray(is_common_TLk.mean((0, 2))) if len(final_TLk) else np.zeros(0)


def overlap(first_TLk: Ints, second_TLk: Ints, num_experts: int) -> float:
    """Return the share of experts that a token of one voice has in common with one of another.

    mean over layers and token pairs (t, u) of |S_t ∩ S_u| / k = Σ_e r_e q_e / k, where r and q are
    the rates at which each voice's tokens activate expert e. The null is k/E.
    """
    counts = expert_counts(first_TLk, num_experts) * expert_counts(second_TLk, num_experts)
    pairs = first_TLk.shape[0] * second_TLk.shape[0]
    return _mean_share(counts.sum(-1), pairs, first_TLk.shape[-1])


def self_overlap(ids_TLk: Ints, num_experts: int) -> float:
    """Return `overlap` within one voice, over pairs of two different tokens.

    Σ_e n_e (n_e − 1) / (T (T − 1) k): the yardstick for the overlap with other voices, since
    uneven load alone lifts both above k/E.
    """
    counts = expert_counts(ids_TLk, num_experts)
    num_tokens = ids_TLk.shape[0]
    return _mean_share(
        (counts * (counts - 1)).sum(-1), num_tokens * (num_tokens - 1), ids_TLk.shape[-1]
    )


def js_divergence(first_LE: Floats, second_LE: Floats) -> Floats:
    """Return the Jensen–Shannon divergence of two loads for each layer, by ln 2, [L], in [0, 1].

    JS = (H((p+q)/2) − (H(p) + H(q))/2) / ln 2. Source: Lin, IEEE Trans. Inf. Theory 37 (1991).
    """
    mixed = entropy((first_LE + second_LE) / 2)
    return np.maximum(mixed - (entropy(first_LE) + entropy(second_LE)) / 2, 0) / math.log(2)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Return exp(x) / Σ exp(x) over the last axis."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def entropy(probs: Floats) -> Floats:
    """Return −Σ p ln p over the last axis, in nats, with 0 ln 0 = 0."""
    logs = np.log(np.where(probs > 0, probs, 1))
    return np.asarray(-(probs * logs).sum(-1) + 0.0)


def _mean_share(common_L: Ints, pairs: int, top_k: int) -> float:
    if pairs == 0:
        return math.nan
    return float((common_L / (pairs * top_k)).mean())
