"""Fits against scikit-learn itself, and against what must hold of them."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from veche.core.errors import InputError
from veche.roles.evaluation.metrics import auroc, ece
from veche.roles.probe.fitting import FitSettings, fit_probe, grouped_folds
from veche.roles.probe.probe import Probe
from veche.roles.probe.stack import Fits


def binary(num_rows=300, num_features=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, num_features)) * 3 + 1
    is_positive = features[:, 0] - features[:, 1] + noise * rng.normal(size=num_rows) > 0
    labels = ["yes" if one else "no" for one in is_positive]
    groups = [str(index // 3) for index in range(num_rows)]
    return features, labels, groups, is_positive


def test_without_calibration_the_weights_are_scikit_learn_s_folded_into_one_map():
    features, labels, groups, is_positive = binary()
    fitted = fit_probe(features, labels, groups, settings=FitSettings(strengths=(0.1,)))
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=0.1).fit(scaler.transform(features), is_positive)
    scale, shift = fitted.calibration
    expected = scale * model.decision_function(scaler.transform(features)) + shift
    np.testing.assert_allclose(fitted.probe.logits(features)[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_scores_of_several_labels_are_scikit_learn_s_probabilities_at_a_temperature():
    features, _, groups, _ = binary()
    labels = [f"part {int(value // 3)}" for value in np.clip(features[:, 0], -5, 5.9)]
    fitted = fit_probe(features, labels, groups, settings=FitSettings(strengths=(0.1,)))
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(features), labels)
    logits = fitted.calibration[0] * model.decision_function(scaler.transform(features))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(fitted.probe.scores(features), expected, atol=2e-3)
    assert fitted.probe.labels == tuple(model.classes_)


def test_wide_features_are_read_through_principal_components_and_still_one_map():
    rng = np.random.default_rng(1)
    features, labels, groups, is_positive = binary(noise=0.1)
    wide = features @ rng.normal(size=(6, 500)) + 0.1 * rng.normal(size=(300, 500))
    fitted = fit_probe(wide, labels, groups, settings=FitSettings(components=16))
    assert fitted.probe.weight.shape == (1, 500)
    assert auroc(fitted.held_out[:, 0], is_positive) > 0.95


def test_noise_is_not_believed():
    rng = np.random.default_rng(2)
    _, labels, groups, is_positive = binary()
    fitted = fit_probe(rng.normal(size=(300, 400)), labels, groups)
    confidence = 1 / (1 + np.exp(-fitted.held_out[:, 0]))
    assert abs(confidence - is_positive.mean()).max() < 0.25


def test_calibration_makes_confidence_what_it_says():
    features, labels, groups, _ = binary(num_rows=3000, noise=6.0)
    fitted = fit_probe(features[:1500], labels[:1500], groups[:1500])
    score = fitted.probe.scores(features[1500:])[:, 1]
    is_positive = np.array(labels[1500:]) == "yes"
    assert ece(score, is_positive) < 0.06


def test_no_group_is_on_both_sides_of_a_fold_and_each_row_is_left_out_once():
    _, _, groups, is_positive = binary()
    folds = list(grouped_folds(groups, is_positive.astype(int), FitSettings()))
    for seen, left_out in folds:
        assert not {groups[row] for row in seen} & {groups[row] for row in left_out}
    assert sorted(np.concatenate([left_out for _, left_out in folds])) == list(range(300))


def test_a_label_that_groups_give_away_does_not_look_learnt():
    """Rows of a group are alike, labels go by group: only a fold that parts groups is fooled."""
    rng = np.random.default_rng(3)
    mark = rng.normal(size=(60, 30))
    features = np.repeat(mark, 5, axis=0)
    is_positive = np.repeat(rng.random(60) > 0.5, 5)
    labels = ["yes" if one else "no" for one in is_positive]
    fitted = fit_probe(features, labels, [str(row // 5) for row in range(300)])
    assert auroc(fitted.held_out[:, 0], is_positive) < 0.7


def test_a_stack_is_as_good_as_its_parts_together():
    rng = np.random.default_rng(4)
    hidden = rng.normal(size=(400, 5))
    is_positive = hidden[:, 0] + hidden[:, 1] > 0
    wide = np.outer(hidden[:, 0], rng.normal(size=200)) + 0.3 * rng.normal(size=(400, 200))
    blocks = {"wide": wide, "narrow": hidden[:, 1:3]}
    labels = ["yes" if one else "no" for one in is_positive]
    groups = [str(row // 2) for row in range(400)]
    fitted = Fits(blocks, labels, groups).stack(("wide", "narrow"))
    assert set(fitted.stack.probes) == {"wide", "narrow"}
    assert auroc(fitted.stack.scores(blocks)[:, 1], is_positive) > 0.97
    assert auroc(fitted.top.held_out[:, 0], is_positive) > 0.95


def test_a_stack_names_the_block_that_is_missing():
    features, labels, groups, _ = binary()
    stack = Fits({"figures": features}, labels, groups).stack(["figures"]).stack
    with pytest.raises(InputError, match="6 features of 'figures', and got none"):
        stack.scores({})
    with pytest.raises(InputError, match="got 2"):
        stack.scores({"figures": features[:, :2]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, g: (x[:0], [], []), "no examples were given"),
        (lambda x, y, g: (x, ["yes"] * len(y), g), "all 300 examples are 'yes'"),
        (lambda x, y, g: (x, y, ["one"] * len(y)), "two problems"),
        (lambda x, y, g: (np.where(x > 9, np.nan, x), y, g), "row .* are not finite"),
        (lambda x, y, g: (x, ["maybe", *y[1:]], g), "'maybe' is none of no, yes"),
    ],
)
def test_what_cannot_be_fitted_is_one_clear_error(change, message):
    features, labels, groups, _ = binary(noise=0.1)
    with pytest.raises(InputError, match=message):
        fit_probe(*change(features, labels, groups), labels=("no", "yes"))


def test_a_label_of_one_problem_alone_is_refused():
    features, _, groups, _ = binary()
    labels = ["yes" if group == "7" else "no" for group in groups]
    with pytest.raises(InputError, match="one label belong to one problem"):
        fit_probe(features, labels, groups)


def test_features_of_another_width_are_refused():
    features, labels, groups, _ = binary()
    probe = Probe.fit(features, labels, groups)
    with pytest.raises(InputError, match="4 features were given to a probe of 6"):
        probe.scores(features[:, :4])


def test_narrow_blocks_are_read_together_too():
    """Two figures that say nothing alone, and everything beside each other."""
    rng = np.random.default_rng(5)
    level = rng.normal(size=(400, 1)) * 5
    is_positive = rng.random(400) > 0.5
    blocks = {"level": level, "figure": level + is_positive[:, None]}
    labels = ["yes" if one else "no" for one in is_positive]
    fitted = Fits(blocks, labels, [str(row) for row in range(400)]).stack(("level", "figure"))
    assert "level+figure" in fitted.stack.probes
    assert auroc(fitted.parts["figure"].held_out[:, 0], is_positive) < 0.65
    assert auroc(fitted.top.held_out[:, 0], is_positive) > 0.9


@pytest.mark.parametrize("width", [4, 500])
@pytest.mark.parametrize("rounding", [1e-17, 1e-8])
def test_what_differs_by_rounding_alone_is_not_read(width, rounding):
    """As the load of experts that are all active in every layer."""
    features, labels, groups, is_positive = binary()
    random = np.random.default_rng(1)
    constant = 1 / 16 * (1 + rounding * random.standard_normal((2, 300, width)))
    assert np.all(fit_probe(constant[0], labels, groups).probe.weight == 0)
    blocks = {"hidden": features, "load": constant[0]}
    stack = Fits(blocks, labels, groups).stack(("hidden", "load")).stack
    scores = stack.scores({"hidden": features, "load": constant[1]})[:, 1]
    alone = fit_probe(features, labels, groups).probe.scores(features)[:, 1]
    assert auroc(scores, is_positive) >= auroc(alone, is_positive) - 0.005
