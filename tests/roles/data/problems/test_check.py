"""An answer is right however it is put, and wrong however near."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.roles.data.problems.check import answer_in, is_right

RIGHT = {
    "27": [
        "27", "27.", "Answer: 27", "The answer is 27.", "**Answer:** 27 apples", "3 * 9 = 27",
        "Answer: 3 * 9 = 27", r"So \boxed{27}", "Ответ: 27 яблок.", "27.0", "It is 27cm long",
        "I count 3, then 9, so there are 27", "Ответ — 27", "First answer: 26\nAnswer: 27",
        "answer\n27", "Answer: 27 metres (2700 centimetres)",
    ],
    "12500": ["12,500", "12 500", "12\u00a0500 г", "Answer: 12,500.00", "12500,0"],
    "-5": ["-5", "Answer: -5", "It is −5."],
    "2024-03-05": [
        "5 March 2024", "March 5, 2024", "March 5th", "Answer: 5 March 2024.", "2024-03-05",
        "the 5th of March 2024", "5 марта 2024 года", "Ответ: 5 марта", "05.03.2024", "Mar 5, 2024",
        "From 1 March 2024 it is 4 days to 5 March 2024",
    ],
    "Thursday": ["Thursday", "It is a thursday.", "Answer: Thu", "From Monday to Thursday",
                 "четверг"],
    "среда": ["Среда", "Ответ: в среду", "Это будет среда.", "Wednesday"],
    "[3, 1, 2]": [
        "[3, 1, 2]", "Answer: 3, 1, 2", "[3,1,2]", "The list [1, 2] becomes [3, 1, 2].",
        "Ответ: 3 1 2", "3, 1 and 2", "Ответ: 3, 1 и 2", "Answer: [3; 1; 2]",
    ],
    "yes": ["Yes", "yes, he is", "Answer: yes", "So he is. Yes.", "Да", "Answer: Yes, not no"],
    "нет": ["Нет.", "Ответ: нет", "No, he is not. Yes is wrong.", "Нет, потому что да"],
}  # fmt: skip
WRONG = {
    "27": ["", "no idea", "28", "270", "127", "2.7", "Answer: 28 (not 27)", "27 + 1 = 28", "-27"],
    "12500": ["12.5", "12", "500", "12 50", "1 2500"],
    "2024-03-05": ["5 April 2024", "5 March 2023", "6 March", "31 February 2024", "March",
                   "05.04.2024"],
    "Thursday": ["Friday", "Answer: Friday, a day after Thursday", "thirst", "день"],
    "[3, 1, 2]": ["[3, 2, 1]", "[3, 1]", "[3, 1, 2, 2]", "Answer: 312", "[a, b]", "3"],
    "yes": ["No", "Answer: no", "maybe", "yesterday", "нет"],
}  # fmt: skip


@pytest.mark.parametrize(("final", "said"), [(f, s) for f, many in RIGHT.items() for s in many])
def test_right_answers_are_right(final, said):
    assert is_right(final, said)


@pytest.mark.parametrize(("final", "said"), [(f, s) for f, many in WRONG.items() for s in many])
def test_wrong_answers_are_wrong(final, said):
    assert not is_right(final, said)


@pytest.mark.parametrize("final", RIGHT)
@given(said=st.text(max_size=60))
def test_any_text_is_either_and_breaks_nothing(final, said):
    assert is_right(final, said) in (True, False)


@given(number=st.integers(-(10**9), 10**9), other=st.integers(-(10**9), 10**9))
def test_numbers_are_right_exactly_when_they_are_equal(number, other):
    assert is_right(str(number), f"Answer: {other:,}") == (number == other)


@given(numbers=st.lists(st.integers(-99, 99), min_size=2, max_size=6))
def test_lists_read_back_as_they_were_written(numbers):
    assert answer_in("[1]", f"It is {numbers}") == tuple(numbers)
    assert is_right(str(numbers), f"Answer: {', '.join(map(str, numbers))}")


def test_what_cannot_be_checked_is_said():
    with pytest.raises(ValueError, match="no answer that can be checked"):
        is_right("perhaps", "perhaps")
