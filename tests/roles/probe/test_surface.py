"""What anyone can see of a text."""

import math

import numpy as np
import pytest

from veche.roles.data.example import Example, Message
from veche.roles.probe.surface import (
    ANSWER_FEATURES,
    STEP_FEATURES,
    answer_surface,
    step_surface,
)


def example(*steps, question="What is 7 + 5?"):
    messages = (
        Message(role="user", content=question),
        Message(role="assistant", content="\n".join(steps)),
    )
    return Example(messages=messages, group="g", task="t", steps=steps)


def value(row, name, names=STEP_FEATURES):
    return row[names.index(name)]


def test_features_are_as_many_as_their_names():
    one = example("7 + 5 = 12", "So 12.")
    assert step_surface(one).shape == (2, len(STEP_FEATURES))
    assert answer_surface(one).shape == (len(ANSWER_FEATURES),)


def test_they_count_what_can_be_seen():
    rows = step_surface(example("7 + 5 = 12", "So -3.5 is NOT 12", "So -3.5 is NOT 12"))
    assert value(rows[0], "numbers") == pytest.approx(math.log1p(3))
    assert value(rows[0], "new_numbers") == pytest.approx(math.log1p(1))
    assert value(rows[0], "count_+") == pytest.approx(math.log1p(1))
    assert value(rows[1], "negative_numbers") == pytest.approx(math.log1p(1))
    assert value(rows[1], "largest_number") == pytest.approx(math.log1p(12))
    assert [value(row, "same_as_an_earlier_step") for row in rows] == [0, 0, 1]
    assert [value(row, "place") for row in rows] == [0, 1, 2]
    assert value(rows[2], "repeated_words") == 1


def test_a_step_is_seen_without_what_comes_behind_it():
    short, long = step_surface(example("a 1", "b 2")), step_surface(example("a 1", "b 2", "c 3"))
    np.testing.assert_array_equal(short, long[:2])


def test_a_number_of_a_thousand_digits_has_a_size():
    row = step_surface(example("9" * 1000))[0]
    assert value(row, "largest_number") == pytest.approx(1000 * math.log(10), rel=0.01)


def test_a_russian_text_has_words():
    row = step_surface(example("Ответ: двенадцать", question="Сколько?"))[0]
    assert value(row, "words") == pytest.approx(math.log1p(2))
