"""Softmax regression against scikit-learn's, and against its own law."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from veche.experts.metrics import softmax
from veche.roles.intent.regression import fit_softmax


def rows(seed, count=90, width=6, labels=3):
    rng = np.random.default_rng(seed)
    label = np.arange(count) % labels
    features = rng.normal(size=(count, width)) * [1, 2, 3, 4, 5, 0.1] + label[:, None] * 0.4
    return features.astype(np.float32), label


@pytest.mark.parametrize("penalty", [1e-2, 1e-1])
def test_it_is_the_logistic_regression_of_standardised_features(penalty):
    features, label = rows(0)
    z = (features - features.mean(0)) / (features.std(0) + 1e-4) / np.sqrt(6)
    peer = LogisticRegression(C=1 / (2 * penalty * len(label)), tol=1e-8, max_iter=5000)
    peer.fit(z, label)
    found = softmax(fit_softmax(features, label, penalty=penalty, steps=1000).scores(features))
    assert found == pytest.approx(peer.predict_proba(z), abs=2e-3)


def test_without_a_penalty_each_label_is_as_likely_as_it_is_frequent():
    """The gradient of the bias is Σ_n (p_nk − [y_n = k]) / N, which is 0 at the optimum."""
    features, label = rows(1)
    chances = softmax(fit_softmax(features, label, steps=1000).scores(features))
    assert chances.mean(0) == pytest.approx(np.bincount(label) / len(label), abs=1e-3)


def test_a_feature_that_never_changes_does_no_harm():
    features, label = rows(2)
    features[:, 0] = 7
    assert np.isfinite(fit_softmax(features, label).scores(features)).all()
