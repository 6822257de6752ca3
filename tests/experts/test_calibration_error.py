"""The calibration error against a slow loop over bins, and on models that know themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.experts.calibration_error import calibration_error

PREDICTIONS = st.lists(
    st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60
)  # fmt: skip


def slow_error(predictions, bins):
    total = 0.0
    for index in range(bins):
        inside = [
            (confidence, right)
            for confidence, right in predictions
            if index / bins < confidence <= (index + 1) / bins or (index == 0 and confidence == 0)
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(each for each, _ in inside) / len(inside)
            total += len(inside) / len(predictions) * abs(accuracy - confidence)
    return total


@given(PREDICTIONS, st.sampled_from([1, 4, 8]))
def test_it_is_what_a_loop_over_bins_finds(predictions, bins):
    confidence, is_right = zip(*predictions, strict=True)
    found = calibration_error(confidence, is_right, bins=bins)
    assert found == pytest.approx(slow_error(predictions, bins), abs=1e-12)
    assert 0 <= found <= 1


def test_who_is_right_as_often_as_claimed_has_next_to_none():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=40_000)
    is_right = rng.uniform(size=40_000) < confidence
    assert calibration_error(confidence, is_right) < 0.02


def test_who_is_always_sure_errs_as_often_as_it_is_wrong():
    assert calibration_error(np.ones(4), [True, False, False, False]) == 0.75
