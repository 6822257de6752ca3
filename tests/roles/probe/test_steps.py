"""Steps of texts, and whose each token is."""

import numpy as np
import pytest

from veche.core.errors import InputError
from veche.roles.data.example import Example, Message
from veche.roles.probe.steps import (
    NO_STEP,
    cut,
    joined,
    step_of_characters,
    step_of_tokens,
    steps_of,
)


def example(*messages, steps=()):
    turns = tuple(Message(role=role, content=text) for role, text in messages)
    return Example(messages=turns, group="g", task="t", steps=steps)


def test_an_answer_that_was_not_cut_is_read_line_by_line():
    assert steps_of(example(("user", "q"), ("assistant", "one\n\n two "))) == ("one", "two")


def test_a_question_without_an_answer_is_one_step_with_its_line_breaks():
    assert steps_of(example(("user", "a\nb"))) == ("a\nb",)


def test_a_message_of_white_space_is_refused():
    with pytest.raises(InputError, match="'g' is empty"):
        steps_of(example(("user", " \n")))


@pytest.mark.parametrize("steps", [("one", "two"), ("a\nb", "c"), ("шаг",), ("x", "y", "z\n\nw")])
def test_every_character_of_a_joined_text_belongs_to_the_step_that_it_was_taken_from(steps):
    owner = step_of_characters(joined(steps), steps)
    assert [
        "".join(letter for letter, at in zip(joined(steps), owner, strict=True) if at == index)
        for index in range(len(steps))
    ] == list(steps)


def test_a_normalised_text_is_cut_at_the_same_breaks():
    """As by a tokenizer that composes letters: the text is shorter than what it was given."""
    steps = ("cafe\u0301", "the\u0301")
    assert step_of_characters("café\nthé\n", steps).tolist() == [0] * 4 + [-1] + [1] * 3 + [-1]


def test_a_written_text_is_cut_into_its_lines_and_margins_belong_to_none():
    steps, owner = cut(" one \n\n  two\n")
    assert steps == ("one", "two")
    assert "".join(np.array(list(" one \n\n  two\n"))[owner == 1]) == "two"
    assert (owner == NO_STEP).sum() == len(" one \n\n  two\n") - 6


def test_a_token_belongs_to_where_its_last_character_is():
    owner = np.array([0, 0, NO_STEP, 1, 1, NO_STEP])  # "ab\ncd\n"
    # "a", "b\nc" straddles the break, "d", "\n", an end token
    assert step_of_tokens([1, 4, 5, 6, 6], owner).tolist() == [0, 1, 1, NO_STEP, NO_STEP]


def test_a_token_within_a_character_belongs_to_where_that_character_is():
    owner = np.array([0, NO_STEP, 1])  # "ш\nш", each letter of two tokens
    assert step_of_tokens([0, 1, 2, 2, 3], owner).tolist() == [0, 0, NO_STEP, 1, 1]


def test_a_text_of_nothing_has_no_steps():
    assert step_of_tokens([0], cut("")[1]).tolist() == [NO_STEP]
