"""When do two answers say the same?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.council.agreement import (
    agreement,
    agreement_matrix,
    all_agree,
    content_words,
    disagreement,
    final_answer,
    largest_group,
    most_central,
    numbers_in,
)
from veche.council.objections import holds

SAME = [
    ("The answer is 42.", "So 6 × 7. Answer: 42"),
    ("Answer: 1,000", "Long thought.\nAnswer: 1000.0"),
    (r"Thus \boxed{7}", "Answer: 7"),
    ("Ответ: Париж", "Думаю так. Ответ: париж."),
    ("Итог: 3,5", "Ответ: 3.5"),
    ("The capital of France is Paris.", "Paris is the capital of France."),
    ("Столица Франции — Париж.", "Париж является столицей Франции."),
    ("Небо голубое из-за рассеяния света.", "Рассеяние света делает небо голубым."),
    ("Ещё рассеянный свет", "Еще рассеянного света"),
]
DIFFERENT = [
    ("Answer: 42", "Answer: 41"),
    ("Answer: yes", "Answer: no"),
    ("Ответ: Париж", "Ответ: Лион"),
    ("It is safe to eat this mushroom raw.", "It is not safe to eat this mushroom raw."),
    ("Этот гриб можно есть сырым.", "Этот гриб нельзя есть сырым."),
    ("The war ended in Europe in 1945.", "The war ended in Europe in 1918."),
    ("Cats sleep most of the day.", "Interest rates follow inflation."),
    ("", "Anything"),
    ("", ""),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_the_same_answer_in_other_words_agrees(first, second):
    assert agreement(first, second) >= 0.6


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_another_answer_does_not_agree(first, second):
    assert agreement(first, second) < 0.6


@given(st.text(), st.text())
def test_agreement_is_symmetric_and_between_0_and_1(first, second):
    measured = agreement(first, second)
    assert 0 <= measured <= 1
    assert measured == agreement(second, first)


@given(st.text())
def test_an_answer_with_words_agrees_with_itself(text):
    if content_words(text) or final_answer(text):
        assert agreement(text, text) == pytest.approx(1)


def test_f1_equals_a_slow_count():
    first, second = "red green blue blue", "green blue yellow"
    left, right = first.split(), second.split()
    common = 0
    for word in left:
        if word in right:
            right.remove(word)
            common += 1
    assert agreement(first, second) == pytest.approx(2 * common / (4 + 3))


def test_numbers_have_one_form():
    assert numbers_in("1,000 and 1 000 and 1000.0 and 3,5 and −2") == [
        "1000",
        "1000",
        "1000",
        "3.5",
        "-2",
    ]
    assert numbers_in("in 2024 300 people") == ["2024", "300"]


def test_groups_and_centres_of_a_matrix():
    matrix = agreement_matrix(["Answer: 4", "Answer: 5", "Answer: 4"])
    assert largest_group(matrix, 0.6) == [0, 2]
    assert most_central(matrix) == 0
    assert disagreement(matrix) == pytest.approx(2 / 3)
    assert not all_agree(matrix, 0.6)
    assert all_agree(agreement_matrix(["Answer: 4"] * 3), 0.6)
    assert disagreement([[1.0]]) == 0


DRAFT = "The capital of France is Lyon. Столица Франции — Лион."


@pytest.mark.parametrize(
    "objection",
    [
        "The claim that the capital is Lyon is wrong: it is Paris.",
        "It should be Paris, not Lyon.",
        "Столица Франции не Лион, а Париж.",
        "Неверно, что столица Франции Лион.",
    ],
)
def test_an_objection_with_a_fault_in_the_drafts_words_holds(objection):
    assert holds(objection, DRAFT)


@pytest.mark.parametrize(
    "objection",
    [
        "",
        "No fault.",
        "There is no error in the capital.",
        "Nothing is wrong with the capital.",
        "The capital of France is Lyon.",
        "This is wrong.",
        "It could be better.",
        "Ошибок нет: столица названа.",
        "Столица названа верно.",
    ],
)
def test_praise_quotation_and_vague_blame_do_not_hold(objection):
    assert not holds(objection, DRAFT)


def test_a_copy_of_another_draft_is_no_objection():
    other = "The capital should not be Lyon; the capital of France is Paris."
    assert holds(other, DRAFT)
    assert not holds(other, DRAFT, [DRAFT, other])
