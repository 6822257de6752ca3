"""Russian numerals, against the table of a grammar."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.roles.data.problems.measures import QUANTITIES
from veche.roles.data.problems.numerals import DAYS, TIMES, WEEKS, counted, russian_form

TABLE = {
    1: "день", 2: "дня", 4: "дня", 5: "дней", 10: "дней", 11: "дней", 12: "дней", 14: "дней",
    15: "дней", 20: "дней", 21: "день", 22: "дня", 25: "дней", 100: "дней", 101: "день",
    102: "дня", 111: "дней", 112: "дней", 121: "день", 1000: "дней", 1001: "день", 1011: "дней",
}  # fmt: skip


@pytest.mark.parametrize("number", TABLE)
def test_days_are_counted_as_in_a_grammar(number):
    assert counted(number, DAYS, "ru") == f"{number} {TABLE[number]}"
    assert counted(number, DAYS, "en") == f"{number} day{'' if number == 1 else 's'}"


@given(number=st.integers(0, 10**6))
def test_the_last_two_digits_decide(number):
    text = f"{number:02d}"[-2:]
    slow = 2 if text[0] == "1" else {"1": 0, "2": 1, "3": 1, "4": 1}.get(text[1], 2)
    assert russian_form(number) == slow


def test_what_something_is_done_to_is_in_the_accusative():
    assert counted(21, WEEKS, "ru", is_object=True) == "21 неделю"
    assert counted(21, WEEKS, "ru") == "21 неделя"
    assert counted(22, WEEKS, "ru", is_object=True) == "22 недели"
    assert counted(1, DAYS, "ru", is_object=True) == "1 день"
    assert [counted(n, TIMES, "ru") for n in (2, 5, 11, 21)] == [
        "2 раза",
        "5 раз",
        "11 раз",
        "21 раз",
    ]


def test_feminine_units_have_an_accusative_and_all_a_prepositional():
    units = {unit.name: unit.words for quantity in QUANTITIES for unit in quantity.units}
    for name, words in units.items():
        is_feminine = words.russian[0].endswith("а")
        assert bool(words.accusative) == is_feminine, name
        assert words.within.endswith(("ах", "ях")), name


def test_every_unit_holds_a_whole_number_of_the_next():
    for quantity in QUANTITIES:
        sizes = [unit.size for unit in quantity.units]
        assert all(a % b == 0 and a > b for a, b in pairwise(sizes))
