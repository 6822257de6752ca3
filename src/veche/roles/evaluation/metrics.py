"""How good scores, answers and reports are: equations on what was said and what is true.

Shapes: N examples. A score is higher the likelier something is; a probability is one in [0, 1].
What is undefined is NaN: the AUROC of one class only, a mean of nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from veche.experts.calibration_error import calibration_error

ECE_BINS = 10
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def auroc(score_N: ArrayLike, is_positive_N: ArrayLike) -> float:
    """Return the area under the ROC curve: P(score⁺ > score⁻) + ½ P(score⁺ = score⁻).

    By ranks, AUROC = (Σ_{i positive} rank_i − P (P + 1)/2) / (P (N − P)) with P positives; scores
    that tie share their mean rank. NaN where there is one class only.

    Source: Hanley, McNeil, The meaning and use of the area under a ROC curve (1982).
    """
    score_N, is_positive_N = _pairs(score_N, is_positive_N)
    num_positive = int(is_positive_N.sum())
    num_pairs = num_positive * (len(score_N) - num_positive)
    if not num_pairs:
        return math.nan
    surplus = _mean_ranks(score_N)[is_positive_N].sum() - num_positive * (num_positive + 1) / 2
    return float(surplus / num_pairs)


def auprc(score_N: ArrayLike, is_positive_N: ArrayLike) -> float:
    """Return the average precision, Σ_t (R_t − R_{t−1}) P_t over distinct thresholds t.

    P_t and R_t are precision and recall of "score ≥ t"; scores that tie pass together. Chance is
    the share of positives. NaN where nothing is positive.

    Source: Davis, Goadrich, The relationship between precision-recall and ROC curves (2006); no
    interpolation, as in scikit-learn.
    """
    score_N, is_positive_N = _pairs(score_N, is_positive_N)
    if not is_positive_N.any():
        return math.nan
    passed_T, positive_T = _passed(score_N, is_positive_N.astype(np.float64))
    recall_T = positive_T / positive_T[-1]
    return float(np.sum(np.diff(recall_T, prepend=0.0) * positive_T / passed_T))


def roc_curve(score_N: ArrayLike, is_positive_N: ArrayLike) -> tuple[Floats, Floats]:
    """Return the false and true positive rates, from (0, 0) to (1, 1), at distinct thresholds.

    The area below, by trapezoids, is `auroc`.

    Raises:
        ValueError: there is one class only.
    """
    score_N, is_positive_N = _pairs(score_N, is_positive_N)
    passed_T, positive_T = _passed(score_N, is_positive_N.astype(np.float64))
    negative_T = passed_T - positive_T
    if not positive_T[-1] or not negative_T[-1]:
        raise ValueError("a ROC curve needs both classes")
    rates = (negative_T / negative_T[-1], positive_T / positive_T[-1])
    return np.insert(rates[0], 0, 0.0), np.insert(rates[1], 0, 0.0)


def ece(probability_N: ArrayLike, is_true_N: ArrayLike) -> float:
    """Return the expected calibration error over ten bins of equal width (`calibration_error`)."""
    probability_N, is_true_N = _pairs(probability_N, is_true_N)
    return calibration_error(probability_N, is_true_N, bins=ECE_BINS) if len(is_true_N) else np.nan


def brier(probability_N: ArrayLike, is_true_N: ArrayLike) -> float:
    """Return the Brier score, mean (p − y)² with y 1 where true; 0 is best, ¼ is p = ½ always.

    Source: Brier, Verification of forecasts expressed in terms of probability (1950), for one
    event: half of his sum over both outcomes.
    """
    probability_N, is_true_N = _pairs(probability_N, is_true_N)
    return _mean((probability_N - is_true_N) ** 2)


def aurc(confidence_N: ArrayLike, is_right_N: ArrayLike) -> float:
    """Return the area under the risk-coverage curve, (1/N) Σ_i risk(κ_i); 0 is best.

    risk(θ) is the share of wrong ones among those with confidence κ ≥ θ, so what ties is answered
    together. Confidence that says nothing gives the error rate.

    Source: Geifman, Uziel, El-Yaniv, Bias-reduced uncertainty estimation (arXiv 1805.08206), eq. 2.
    """
    confidence_N, is_right_N = _pairs(confidence_N, is_right_N)
    if not len(confidence_N):
        return math.nan
    passed_T, wrong_T = _passed(confidence_N, (~is_right_N).astype(np.float64))
    return float(np.sum(np.diff(passed_T, prepend=0.0) * wrong_T / passed_T) / len(confidence_N))


def accuracy(found_N: Sequence[object], true_N: Sequence[object]) -> float:
    """Return the share of answers that are the true one.

    An index of the first wrong step that is None says that there is none: `accuracy` of such
    indices is the exact match of the first error.
    """
    return _mean([found == true for found, true in zip(found_N, true_N, strict=True)])


def recall(is_found_N: ArrayLike, is_positive_N: ArrayLike) -> float:
    """Return the share of positives that were found; NaN where there are none."""
    return _mean(np.asarray(is_found_N, bool)[np.asarray(is_positive_N, bool)])


def _pairs(value_N: ArrayLike, is_true_N: ArrayLike) -> tuple[Floats, Bools]:
    values = np.asarray(value_N, np.float64)
    labels = np.asarray(is_true_N, np.bool_)
    if values.shape != labels.shape or values.ndim != 1 or np.isnan(values).any():
        raise ValueError(f"scores {values.shape} (no NaN) don't fit labels {labels.shape}")
    return values, labels


def _mean_ranks(value_N: Floats) -> Floats:
    """Return ranks from 1; equal values share their mean rank."""
    _, index_N, count_T = np.unique(value_N, return_inverse=True, return_counts=True)
    last_T = np.cumsum(count_T)
    return np.asarray((last_T - (count_T - 1) / 2)[index_N])


def _passed(score_N: Floats, weight_N: Floats) -> tuple[Floats, Floats]:
    """Return how many pass each distinct threshold, the highest first, and their weights' sum."""
    order_N = np.argsort(-score_N, kind="stable")
    score_N = score_N[order_N]
    is_last_N = np.append(score_N[1:] != score_N[:-1], True)[: len(score_N)]
    passed_T = np.flatnonzero(is_last_N).astype(np.float64) + 1
    return passed_T, np.asarray(np.cumsum(weight_N[order_N])[is_last_N])


def _mean(values_N: ArrayLike) -> float:
    values_N = np.asarray(values_N, np.float64)
    return float(values_N.mean()) if len(values_N) else math.nan
