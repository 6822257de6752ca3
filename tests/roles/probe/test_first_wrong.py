"""Which step is the first wrong one."""

import numpy as np
import pytest

from veche.roles.probe.first_wrong import first_wrong, first_wrong_step


@pytest.mark.parametrize("hazard", [[], [0.3], [0.1, 0.9, 0.5], [1.0, 0.2], [0.0, 0.0]])
def test_the_chances_add_up_to_one(hazard):
    assert first_wrong(hazard).sum() == pytest.approx(1)


def test_the_chances_are_those_of_drawing_step_after_step():
    hazard = np.array([0.2, 0.5, 0.3])
    rng = np.random.default_rng(0)
    wrong = rng.random((200_000, 3)) < hazard
    first = np.where(wrong.any(1), wrong.argmax(1), 3)
    drawn = np.bincount(first, minlength=4) / len(first)
    np.testing.assert_allclose(first_wrong(hazard), drawn, atol=0.005)


def test_no_step_is_named_where_none_is_likelier():
    assert first_wrong_step([0.1, 0.2]) is None
    assert first_wrong_step([0.1, 0.7]) == 1
    assert first_wrong_step([]) is None
