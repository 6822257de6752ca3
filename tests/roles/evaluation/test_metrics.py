"""Metrics against scikit-learn, and against slow counts that say what they mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as peer

from veche.experts.calibration_error import calibration_error
from veche.roles.evaluation.metrics import (
    accuracy,
    auprc,
    aurc,
    auroc,
    brier,
    ece,
    recall,
    roc_curve,
)

SCORED = st.lists(
    st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.booleans()), min_size=2, max_size=40
)
"""Few values, so that many tie."""
BOTH = SCORED.filter(lambda rows: len({label for _, label in rows}) == 2)


def columns(rows):
    score, label = zip(*rows, strict=True)
    return np.array(score), np.array(label)


def counted_pairs(rows):
    pairs = [(a, b) for a, is_a in rows for b, is_b in rows if is_a and not is_b]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def risk_by_risk(rows):
    """The mean, over every example, of the error rate among all that are at least as sure."""
    risks = []
    for threshold, _ in rows:
        answered = [right for confidence, right in rows if confidence >= threshold]
        risks.append(1 - sum(answered) / len(answered))
    return sum(risks) / len(risks)


@given(BOTH)
def test_auroc_is_the_share_of_pairs_in_the_right_order_where_ties_are_half(rows):
    found = auroc(*columns(rows))
    assert found == pytest.approx(counted_pairs(rows), abs=1e-12)
    assert found == pytest.approx(peer.roc_auc_score(*columns(rows)[::-1]), abs=1e-12)


@given(BOTH)
def test_auroc_of_the_opposite_score_is_the_rest(rows):
    score, label = columns(rows)
    assert auroc(-score, label) == pytest.approx(1 - auroc(score, label), abs=1e-12)


@given(BOTH)
def test_the_area_below_the_roc_curve_is_auroc(rows):
    score, label = columns(rows)
    false_T, true_T = roc_curve(score, label)
    assert (false_T[0], true_T[0], false_T[-1], true_T[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true_T, false_T) == pytest.approx(auroc(score, label), abs=1e-12)


@given(BOTH)
def test_auprc_is_scikit_learns_average_precision(rows):
    score, label = columns(rows)
    expected = peer.average_precision_score(label, score)
    assert auprc(score, label) == pytest.approx(expected, abs=1e-12)


@given(SCORED)
def test_brier_is_scikit_learns(rows):
    score, label = columns(rows)
    expected = peer.brier_score_loss(label, score, pos_label=True)
    assert brier(score, label) == pytest.approx(expected, abs=1e-12)


@given(SCORED)
def test_aurc_is_the_mean_of_the_risks_at_every_confidence(rows):
    assert aurc(*columns(rows)) == pytest.approx(risk_by_risk(rows), abs=1e-12)


@given(SCORED)
def test_one_confidence_for_all_has_the_error_rate_for_its_aurc(rows):
    _, label = columns(rows)
    assert aurc(np.ones(len(label)), label) == pytest.approx(1 - label.mean(), abs=1e-12)


def test_aurc_of_a_perfect_order_is_the_known_limit():
    """Risk is 0 up to the right ones, and then grows: Σ_{i > right} (i − right)/i / N."""
    label = np.array([True] * 60 + [False] * 40)
    expected = sum((i - 60) / i for i in range(61, 101)) / 100
    assert aurc(np.linspace(1, 0, 100), label) == pytest.approx(expected, abs=1e-12)


@given(SCORED)
def test_ece_has_ten_bins(rows):
    score, label = columns(rows)
    assert ece(score, label) == calibration_error(score, label, bins=10)


def test_what_is_not_defined_is_nan():
    assert math.isnan(auroc([0.1, 0.2], [True, True]))
    assert math.isnan(auroc([], []))
    assert math.isnan(auprc([0.1, 0.2], [False, False]))
    assert math.isnan(recall([True], [False]))
    assert all(math.isnan(each([], [])) for each in (ece, brier, aurc, accuracy))
    with pytest.raises(ValueError, match="both classes"):
        roc_curve([0.1, 0.2], [True, True])


@pytest.mark.parametrize("metric", [auroc, auprc, ece, brier, aurc])
def test_scores_that_are_nan_or_of_other_rows_are_a_mistake(metric):
    with pytest.raises(ValueError, match="fit"):
        metric([0.5, math.nan], [True, False])
    with pytest.raises(ValueError, match="fit"):
        metric([0.5], [True, False])


def test_a_first_error_matches_only_where_it_is_the_same_or_missing_in_both():
    assert accuracy([0, None, 2, None], [0, None, 1, 3]) == 0.5


def test_recall_counts_what_was_found_of_what_is_there():
    assert recall([True, False, True, True], [True, True, False, True]) == pytest.approx(2 / 3)
