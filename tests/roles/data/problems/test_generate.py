"""Every label of a made problem, against evaluators that know nothing of how it was made."""

import itertools
import re
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.roles.data.problems.check import is_right
from veche.roles.data.problems.generate import generate
from veche.roles.data.problems.puzzle import KINDS, LEVELS
from veche.roles.data.split import split_by_group

LANGUAGES = ("en", "ru")
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December", "января", "февраля", "марта", "апреля", "мая", "июня",
    "июля", "августа", "сентября", "октября", "ноября", "декабря",
]  # fmt: skip
WEEKDAYS = [
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "понедельник",
    "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье",
]  # fmt: skip


def made(kind, language, difficulty, seed=0, count=12):
    return generate(kind, language=language, difficulty=difficulty, count=count, seed=seed)


def question(example):
    return example.messages[0].content


def body(example):
    """Return the lines of a solution without the last, which is the answer."""
    return example.steps[:-1]


levels = st.sampled_from(LEVELS)
languages = st.sampled_from(LANGUAGES)
seeds = st.integers(0, 10**6)


# --- sums: Python's own arithmetic ----------------------------------------------------------------

_WORDS_OF_SUMS = [
    (r"(?:Add|Прибавь|added to it|прибавляют) (\d+)", "+"),
    (r"(\d+) is added", "+"),
    (r"gets (\d+) more|получает ещё (\d+)", "+"),
    (r"(?:Subtract|Вычти|отнимают) (\d+)|(\d+) is taken away|gives (\d+) away|отдаёт (\d+)", "-"),
    (r"(?:[Mm]ultipl\w+ by|[Уу]множ\w+ на) (\d+)|becomes (\d+) times|увеличивается в (\d+)", "*"),
    (r"(?:[Dd]ivided? by|[Рр]аздели на|делят на) (\d+)|into (\d+) equal|их на (\d+) равн", "/"),
]


def value_of_sum(text):
    """Return what a question about sums comes to, read from its words."""
    formula = re.search(r"[(\d][\d ()+*/-]+\d", text)
    if formula and any(sign in formula[0] for sign in "+*/-"):
        return eval(formula[0].replace("/", "//"))  # noqa: S307 - our own digits and signs
    start = int(re.search(r"\d+", text)[0])
    operations = sorted(
        (match.start(), sign, next(group for group in match.groups() if group))
        for pattern, sign in _WORDS_OF_SUMS
        for match in re.finditer(pattern, text)
    )
    value = Fraction(start)
    for _, sign, number in operations:
        value = eval(f"value {sign} Fraction({number})")  # noqa: S307
    return value


@given(language=languages, difficulty=levels, seed=seeds)
def test_sums_come_to_what_python_makes_of_the_question(language, difficulty, seed):
    for example in made("arithmetic", language, difficulty, seed, count=4):
        assert value_of_sum(question(example)) == int(example.final_answer), question(example)
        assert_chain(example, equation_holds)


def equation_holds(line):
    left, right = line.split(" = ")
    assert re.fullmatch(r"\d+ [-+*/] \d+", left)
    return (
        Fraction(*map(int, left.split(" / "))) == int(right)
        if "/" in left
        else (
            eval(left) == int(right)  # noqa: S307
        )
    )


def assert_chain(example, holds):
    """A solution's first false line is the labelled one, and the rest is true in itself."""
    verdicts = [holds(line) for line in body(example)]
    if example.is_right:
        assert all(verdicts)
    else:
        assert [index for index, verdict in enumerate(verdicts) if not verdict] == [
            example.first_bad_step
        ]
    results = [line.rpartition(" = ")[2] for line in body(example)]
    for before, line in itertools.pairwise(body(example)):
        assert line.startswith(before.rpartition(" = ")[2])
    assert example.steps[-1].endswith(": " + results[-1])


# --- dates: datetime ------------------------------------------------------------------------------

_DATE = rf"(\d+) ({'|'.join(MONTHS)}) (\d{{4}})"
_SHIFT = r"(\d+) (day|week|дн|ден|недел)\w*( later| forward| ahead| позже| вперёд)?"


def read_date(text):
    day, month, year = re.search(_DATE, text).groups()
    return date(int(year), MONTHS.index(month) % 12 + 1, int(day))


def shifted(start, number, unit, sign):
    days = int(number) * (7 if unit in ("week", "недел") else 1)
    return start + timedelta(days=days if sign else -days)


@given(language=languages, difficulty=levels, seed=seeds)
def test_dates_are_those_of_datetime(language, difficulty, seed):
    for example in made("dates", language, difficulty, seed, count=6):
        text = question(example)
        shifts = re.findall(_SHIFT, text)
        assert len(shifts) == len(body(example))
        if example.intent == "date":
            day = read_date(text)
        else:
            named = next(name for name in WEEKDAYS if name in text)
            day = date(2024, 1, 1) + timedelta(days=WEEKDAYS.index(named) % 7)
        for number, unit, sign in shifts:
            day = shifted(day, number, unit, sign)
        if example.intent == "date":
            assert example.final_answer == day.isoformat()
        else:
            assert WEEKDAYS.index(example.final_answer) % 7 == day.weekday()
        assert_chain(example, date_line_holds)


def date_line_holds(line):
    left, right = line.split(" = ")
    number, unit, _ = re.search(r"[-+] " + _SHIFT, left).groups()
    if re.search(_DATE, left):
        return shifted(read_date(left), number, unit, " + " in left) == read_date(right)
    monday = date(2024, 1, 1)
    day = monday + timedelta(days=WEEKDAYS.index(left.split()[0]) % 7)
    return shifted(day, number, unit, " + " in left).weekday() == WEEKDAYS.index(right) % 7


# --- units: a table of its own --------------------------------------------------------------------

SIZES = {
    "kilomet|километр": 1000, "centimet|сантиметр": Fraction(1, 100), "millimet|миллиметр":
    Fraction(1, 1000), "met|метр": 1, "tonne|тонн": 1000, "kilogram|килограмм": 1, "gram|грамм":
    Fraction(1, 1000), "day|ден|дн": 24 * 3600, "hour|час": 3600, "minute|минут": 60,
    "second|секунд": 1, "millilit|миллилитр": Fraction(1, 1000), "lit|литр": 1,
}  # fmt: skip


def size_of(word):
    for stems, size in SIZES.items():
        if word.startswith(tuple(stems.split("|"))):
            return size
    raise AssertionError(word)


def amount(text):
    number, word = re.search(r"(\d+) (\w+)", text).groups()
    return int(number) * size_of(word)


@given(language=languages, difficulty=levels, seed=seeds)
def test_units_are_those_of_a_table(language, difficulty, seed):
    for example in made("units", language, difficulty, seed, count=6):
        text = question(example)
        value = None
        words = r"(subtract |вычти |укорач\w+ на |сокращ\w+ на |уменьш\w+ на |легче на )?"
        for lead, number, word, tail in re.findall(
            words + r"(\d+) (\w+)( shorter| lighter| faster| are drained)?", text
        ):
            if word in ("times", "раз", "раза"):
                value *= int(number)
            elif value is None:
                value = int(number) * size_of(word)
            else:
                value += (-1 if lead or tail else 1) * int(number) * size_of(word)
        last = re.search(r"(?:How many |in |Сколько | в )(\w+)(?: is| получится|\?)", text)[1]
        assert value == int(example.final_answer) * size_of(last), text
        assert_chain(example, unit_line_holds)


def unit_line_holds(line):
    left, right = line.split(" = ")
    if " * " in left:
        first, times = left.split(" * ")
        return amount(first) * int(times) == amount(right)
    if found := re.search(r" ([-+]) ", left):
        first, second = left.split(found[0])
        return amount(first) + int(found[1] + "1") * amount(second) == amount(right)
    return amount(left) == amount(right)


# --- lists: plain Python on what the question says ------------------------------------------------

_DEEDS = [
    (r"reverse|переверн|переворач", lambda x, n: list(reversed(x))),
    (r"ascending|smallest to|возрастанию|от меньшего", lambda x, n: sorted(x)),
    (r"descending|largest to|убыванию|от большего", lambda x, n: sorted(x)[::-1]),
    (r"swap|change places|поменяй|меняют местами", lambda x, n: [x[-1], *x[1:-1], x[0]]),
    (r"first number|первое число", lambda x, n: x[1:]),
    (r"last number|последнее число", lambda x, n: x[:-1]),
    (r"largest number|наибольшее число", lambda x, n: [v for v in x if v != max(x)]),
    (r"smallest number|наименьшее число", lambda x, n: [v for v in x if v != min(x)]),
    (r"at (?:the|its) end|в конец", lambda x, n: [*x, n]),
    (r"at (?:the|its) beginning|в начало", lambda x, n: [n, *x]),
    (r"each|каждому", lambda x, n: [v + n for v in x]),
]


@given(language=languages, difficulty=levels, seed=seeds)
def test_lists_are_what_plain_python_makes_of_the_question(language, difficulty, seed):
    for example in made("lists", language, difficulty, seed, count=6):
        told, asked = re.fullmatch(r"(.*?\].*?)\. ([^.]*\?)", question(example)).groups()
        numbers, orders = re.search(r"\[(.*?)\](.*)", told).groups()
        numbers = [int(number) for number in numbers.split(", ")]
        for order in filter(None, re.split(r"[.,] (?:First |then |Сначала |затем )?", orders)):
            deed = next(deed for pattern, deed in _DEEDS if re.search(pattern, order))
            number = re.search(r"\d+", order)
            numbers = deed(numbers, number and int(number[0]))
        if example.intent == "list":
            assert example.final_answer == repr(numbers), question(example)
        else:
            is_sum = re.search(r"sum|add up|сумма|вместе", asked)
            assert int(example.final_answer) == (sum(numbers) if is_sum else max(numbers))


def test_the_labelled_step_of_a_list_is_where_the_two_solutions_part():
    for language, level in itertools.product(LANGUAGES, LEVELS):
        examples = made("lists", language, level)
        for right, wrong in zip(examples[::2], examples[1::2], strict=True):
            parted = [a != b for a, b in zip(right.steps, wrong.steps, strict=True)]
            assert parted.index(True) == wrong.first_bad_step


# --- syllogisms: all models -----------------------------------------------------------------------

_PREMISE = re.compile(
    r"(?:Every|Whoever is an?|Каждый|Кто) (?P<a>[\w ]+?)"
    r"(?: is an? | — |, тот и )(?P<b>[\w ]+?)(?: too)?\."
    r"|(?:No|Whoever is an?|Ни один|Кто) (?P<c>[\w ]+?)"
    r"(?: is an? | is not an? | не |, тот не )(?P<d>[\w ]+?)\."
)


@given(language=languages, difficulty=st.sampled_from(range(1, 7)), seed=seeds)
def test_syllogisms_hold_in_every_model_of_the_premises(language, difficulty, seed):
    for example in made("syllogisms", language, difficulty, seed, count=3):
        text = question(example)
        premises = [
            (m["a"] or m["c"], m["b"] or m["d"], bool(m["a"])) for m in _PREMISE.finditer(text)
        ]
        fact, goal = asked_of(text)
        trades = sorted({trade for a, b, _ in premises for trade in (a, b)})
        found = set()
        for values in itertools.product((False, True), repeat=len(trades)):
            has = dict(zip(trades, values, strict=True))
            if has[fact] and all(not has[a] or has[b] == is_b for a, b, is_b in premises):
                found.add(has[goal])
        assert found == {example.final_answer in ("yes", "да")}, text
        given_premises = {(a, b, is_b) for a, b, is_b in premises}
        for index, line in enumerate(body(example)):
            quoted = re.search(r"(?:and|а) (.*?), (?:so|значит)", line)[1]
            match = _PREMISE.fullmatch(quoted[0].upper() + quoted[1:] + ".")
            premise = (match["a"] or match["c"], match["b"] or match["d"], bool(match["a"]))
            is_bad = not example.is_right and index == example.first_bad_step
            assert (premise in given_premises) != is_bad


def asked_of(text):
    patterns = (
        r"\w+ is an? (?P<fact>[\w ]+)\. Is \w+ an? (?P<goal>[\w ]+)\?",
        r"who is an? (?P<fact>[\w ]+)\. Must he be an? (?P<goal>[\w ]+) as well\?",
        r"\w+ — (?P<fact>\w+)\. Правда ли, что \w+ — (?P<goal>\w+)\?",
        r"он (?P<fact>\w+)\. Тогда он (?P<goal>\w+)\?",
    )
    match = next(found for pattern in patterns if (found := re.search(pattern, text)))
    return match["fact"], match["goal"].lower()


# --- all kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(language=languages, difficulty=levels, seed=seeds)
def test_labels_agree_with_the_checker_and_solutions_come_in_pairs(
    kind, language, difficulty, seed
):
    examples = made(kind, language, difficulty, seed, count=5)
    assert [example.is_right for example in examples] == [True, False] * 5
    for example in examples:
        assert is_right(example.final_answer, example.messages[-1].content) == example.is_right
        assert example.messages[-1].content == "\n".join(example.steps)
        assert (example.first_bad_step is None) == example.is_right
        assert len(example.steps) == (difficulty + 1) // 2 + 1
        if not example.is_right:
            assert example.first_bad_step < len(example.steps) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_problems_and_another_does_not(kind):
    assert made(kind, "en", 6, seed=1) == made(kind, "en", 6, seed=1)
    assert made(kind, "en", 6, seed=1) != made(kind, "en", 6, seed=2)


@pytest.mark.parametrize(("kind", "language"), [*itertools.product(KINDS, LANGUAGES)])
def test_problems_are_different_and_a_split_parts_none(kind, language):
    examples = made(kind, language, 5, count=150)
    assert len({question(example) for example in examples}) == 150
    assert len({example.group for example in examples}) == 150
    for part in split_by_group(examples, [0.8, 0.2], seed=0):
        assert len(part) == 2 * len({example.group for example in part})


def test_more_problems_of_a_seed_begin_with_the_same_ones():
    assert made("dates", "ru", 3, count=9)[:8] == made("dates", "ru", 3, count=4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_stands_in_all_questions_of_one_kind_and_in_no_other(language):
    said = {
        kind: [
            set(re.findall(r"[^\W\d]{3,}", question(example).lower()))
            for example in made(kind, language, 4, count=80)
        ]
        for kind in KINDS
    }
    for kind in KINDS:
        always = set.intersection(*said[kind])
        elsewhere = set().union(*itertools.chain(*(said[k] for k in KINDS if k != kind)))
        assert always <= elsewhere, (kind, always - elsewhere)


@pytest.mark.parametrize("answers", ["none", "right"])
def test_questions_and_right_solutions_can_be_had_alone(answers):
    examples = generate("units", language="ru", difficulty=2, count=5, seed=0, answers=answers)
    assert [e.is_right for e in examples] == [None if answers == "none" else True] * 5
    assert [bool(e.steps) for e in examples] == [answers == "right"] * 5
    assert all(e.final_answer for e in examples)


def test_no_difficulty_beyond_the_dial_and_no_more_problems_than_there_are():
    with pytest.raises(InputError, match="no difficulty 13"):
        made("lists", "en", 13)
    with pytest.raises(InputError, match="hardly more than"):
        made("units", "en", 1, count=500)
