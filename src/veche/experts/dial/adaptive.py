"""As many experts as the routers' entropy asks for, with a given mean. Imports torch.

Legend: N decisions (a token in a layer), E experts.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from veche.core.progress import Advance
from veche.engines.embedded.router_control import RouterControl
from veche.engines.protocol import AdaptiveExperts, Branch, Capture
from veche.experts.dial.figures import Context
from veche.experts.dial.measure import DialText, States, states_of
from veche.experts.metrics import entropy
from veche.surgery.loading import Model

_STEPS = 60
"""Halvings of the interval of scales: to the last bit of a float."""


def rule_for(counts_N: ArrayLike, mean: float, num_experts: int, *, spread: int) -> AdaptiveExperts:
    """Return the rule under which decisions use `mean` experts on average, or as near as can be.

    k = clamp(round(scale · exp(H)), least, most) never falls as the scale grows, so halving finds
    it.

    Args:
        counts_N: exp(H) of each decision.
        mean: experts wanted, in 1..E.
        num_experts: E.
        spread: how far a decision may be from the mean.
    """
    counts_N = np.asarray(counts_N, dtype=np.float64)
    least = max(1, math.floor(mean) - spread)
    most = min(num_experts, math.ceil(mean) + spread)
    low, high = 0.0, 2.0 * num_experts  # counts are at least 1, so that at `high` all are used
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if num_used(counts_N, middle, least, most).mean() < mean:
            low = middle
        else:
            high = middle
    return AdaptiveExperts(least=least, most=most, scale=high)


def num_used(
    counts_N: NDArray[np.float64], scale: float, least: int, most: int
) -> NDArray[np.float64]:
    """Return clamp(round(scale · exp(H)), least, most) of each decision; see `AdaptiveExperts`."""
    return np.clip(np.rint(scale * counts_N), least, most)


@torch.inference_mode()
def router_counts(model: Model, text: DialText, advance: Advance) -> NDArray[np.float64]:
    """Return exp(H) of every decision on the short context, as the checkpoint routes it, [N].

    Args:
        model: the checkpoint as it is.
        text: what it reads.
        advance: called with 1 for each window.
    """
    control = RouterControl(model)
    capture = Capture(routing=False, router_logits=True)
    counts = []
    with control.installed():
        control.set_rows([Branch(voice="dial", instruction="", capture=capture)])
        for tokens_T in text.tokens[:, -text.short_tokens :]:
            model.model(input_ids=tokens_T[None], use_cache=False)
            (row,) = control.take()
            if row.logits is not None:  # they were asked for
                counts.append(_counts(row.logits, control.logit_unit).ravel())
            advance(1)
    return np.concatenate(counts)


def _counts(logits_SLE: NDArray[np.float32], unit: float) -> NDArray[np.float64]:
    """Return exp(H(softmax(logits/unit))) of each token in each layer, [S, L]."""
    scores_SLE = logits_SLE.astype(np.float64) / unit
    probs = np.exp(scores_SLE - scores_SLE.max(-1, keepdims=True))
    return np.exp(entropy(probs / probs.sum(-1, keepdims=True)))


def adaptive_states(
    model: Model, rule: AdaptiveExperts, text: DialText, advance: Advance
) -> tuple[States, dict[Context, tuple[float, ...]]]:
    """Return the states under an adaptive rule, and each window's mean experts a token.

    Args:
        model: the checkpoint as it is.
        rule: how many experts a decision uses.
        text: what it reads.
        advance: called with 1 for each window.
    """
    control = RouterControl(model)
    experts: dict[Context, list[float]] = {context: [] for context in text.contexts}

    def count(context: Context) -> None:
        (row,) = control.take()
        experts[context].append(float((row.weights > 0).sum(-1).mean()))

    with control.installed():
        control.set_rows([Branch(voice="dial", instruction="", num_experts_per_tok=rule)])
        states = states_of(model, text, advance, after_window=count)
    return states, {context: tuple(each) for context, each in experts.items()}
