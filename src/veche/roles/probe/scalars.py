"""Figures of each step: how the model expected its tokens, and where it sent them.

Shapes: S steps, T tokens of one, L layers that route, E experts.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from veche.experts import metrics
from veche.roles.probe.reading import CHOSEN, ENTROPY, FIRST, HAS_DIGIT, SECOND, StepReading

LOGPROB_SCALARS = (
    "logprob_mean",
    "logprob_min",
    "logprob_sum",
    "logprob_std",
    "logprob_last",
    "number_logprob_mean",
    "number_logprob_min",
    "number_logprob_last",
    "entropy_mean",
    "entropy_max",
    "margin_mean",
    "margin_min",
    "max_prob_mean",
    "max_prob_min",
    "surprise_mean",
    "surprise_max",
    "greedy_share",
)
"""Surprise is −log p − H: how much less likely a token was than one drawn from the model is."""
ROUTER_SCALARS = (
    "router_entropy",
    "router_margin",
    "load_entropy",
    "max_violation",
    "drift",
    "new_expert_share",
)
"""Means over layers; drift is the Jensen–Shannon divergence of a step's load from the last one's,
and the new experts are those that no token of an earlier step was sent to."""


def scalars_of(reading: StepReading) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the figures of each step, [S, F], and their names; no router's on a dense model."""
    steps = [reading.values[reading.token_step == step] for step in range(reading.num_steps)]
    columns = [np.array([logprob_scalars(values_T5) for values_T5 in steps], np.float32)]
    names: tuple[str, ...] = LOGPROB_SCALARS
    if reading.counts is not None and reading.router is not None:
        columns.append(router_scalars(reading.counts, reading.router))
        names += ROUTER_SCALARS
    return np.concatenate(columns, axis=1), names


def logprob_scalars(values_T5: NDArray[np.float32]) -> list[float]:
    """Return what `LOGPROB_SCALARS` names, of one step's tokens; zeros where it has none."""
    if not len(values_T5):
        return [0.0] * len(LOGPROB_SCALARS)
    values = values_T5.astype(np.float64)
    chosen, entropy = values[:, CHOSEN], values[:, ENTROPY]
    first, second = np.exp(values[:, FIRST]), np.exp(values[:, SECOND])
    numbers = chosen[values[:, HAS_DIGIT] > 0]
    # A step without a number has nothing unlikely about its numbers.
    numbers = numbers if len(numbers) else np.zeros(1)
    surprise = -chosen - entropy
    return [
        chosen.mean(), chosen.min(), chosen.sum(), chosen.std(), chosen[-1],
        numbers.mean(), numbers.min(), numbers[-1],
        entropy.mean(), entropy.max(),
        (first - second).mean(), (first - second).min(),
        first.mean(), first.min(),
        surprise.mean(), surprise.max(),
        float((chosen >= values[:, FIRST]).mean()),
    ]  # fmt: skip


def router_scalars(
    counts_SLE: NDArray[np.uint16], router_SL2: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what `ROUTER_SCALARS` names, [S, 6]."""
    counts = counts_SLE.astype(np.int64)
    load_SLE = metrics.load(counts)
    seen_SLE = np.cumsum(counts, axis=0) - counts
    drift = [0.0]
    drift += [
        float(metrics.js_divergence(before, now).mean()) for before, now in pairwise(load_SLE)
    ]
    used_S = np.maximum((counts > 0).sum((1, 2)), 1)
    new_S = ((counts > 0) & (seen_SLE == 0)).sum((1, 2)) / used_S
    columns = [
        router_SL2[..., 0].mean(-1),
        router_SL2[..., 1].mean(-1),
        metrics.load_entropy(load_SLE).mean(-1),
        metrics.max_violation(load_SLE).mean(-1),
        np.array(drift),
        new_S,
    ]
    return np.stack(columns, axis=1).astype(np.float32)
