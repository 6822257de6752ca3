"""Chains of sums: add, take away, multiply, divide without a rest."""

from functools import partial
from random import Random
from typing import Literal

from veche.core.language import Language, Phrase
from veche.roles.data.problems.numerals import TIMES, Counted, counted
from veche.roles.data.problems.puzzle import Move, Puzzle, num_moves

Sign = Literal["+", "-", "*", "/"]
Operation = tuple[Sign, int]

_LARGEST = 100_000
"""No chain leads beyond: it is meant to be done in the head."""


def arithmetic(rng: Random, difficulty: int, language: Language) -> Puzzle[int]:
    """Return a chain of sums; its answer is a number."""
    start = rng.randint(2, 10 * difficulty)
    operations: list[Operation] = []
    value = start
    while len(operations) < num_moves(difficulty):
        operation = _operation(rng, value, difficulty)
        result = _applied(operation, value)
        if result is not None and result <= _LARGEST:
            operations.append(operation)
            value = result
    asked = rng.choice((_as_orders, _as_story, _as_formula, _as_thought))
    return Puzzle(
        kind="arithmetic",
        intent="arithmetic",
        language=language,
        difficulty=difficulty,
        question=asked(rng, start, operations, language),
        facts=(start, *operations),
        start=start,
        moves=tuple(
            Move(
                apply=partial(_applied, operation),
                slip=partial(_slip, operation),
                say=partial(_line, operation),
            )
            for operation in operations
        ),
        answer_of=str,
        spell=str,
    )


def _operation(rng: Random, value: int, difficulty: int) -> Operation:
    signs: list[Sign] = ["+", "-"] if difficulty == 1 else ["+", "-", "*", "/"]
    sign = rng.choice(signs)
    largest = 10 * difficulty if sign in ("+", "-") else min(difficulty + 1, 9)
    return sign, rng.randint(2, max(2, largest))


def _applied(operation: Operation, value: int) -> int | None:
    """Return the result, where it is a whole number that is not negative."""
    sign, number = operation
    if sign == "+":
        return value + number
    if sign == "*":
        return value * number
    if sign == "-":
        return value - number if value >= number else None
    return value // number if value % number == 0 else None


def _slip(operation: Operation, value: int, right: int, rng: Random) -> int:
    """Miscount, forget a carry, take one operation for another, or swap digits."""
    sign, number = operation
    confused = {"+": value - number, "-": value + number, "*": value + number, "/": value - number}
    swapped = int(str(right)[::-1])
    wrong = (right - 1, right + 1, right - 10, right + 10, confused[sign], swapped)
    return rng.choice([number for number in wrong if number >= 0])


def _line(operation: Operation, before: int, after: int) -> str:
    sign, number = operation
    return f"{before} {sign} {number} = {after}"


# --- wordings -------------------------------------------------------------------------------------

_ORDERS: dict[Sign, Phrase] = {
    "+": {"en": "Add {n}.", "ru": "Прибавь {n}."},
    "-": {"en": "Subtract {n}.", "ru": "Вычти {n}."},
    "*": {"en": "Multiply by {n}.", "ru": "Умножь на {n}."},
    "/": {"en": "Divide by {n}.", "ru": "Раздели на {n}."},
}
_ORDERS_FRAMES: tuple[Phrase, ...] = (
    {
        "en": "Start with {start}. {orders} What number do you get?",
        "ru": "Начни с числа {start}. {orders} Какое число получится?",
    },
    {
        "en": "Take the number {start}. {orders} What is the result?",
        "ru": "Возьми число {start}. {orders} Каков результат?",
    },
)
_FORMULA_FRAMES: tuple[Phrase, ...] = (
    {"en": "Calculate {formula}.", "ru": "Вычисли {formula}."},
    {"en": "How much is {formula}?", "ru": "Сколько будет {formula}?"},
    {"en": "{formula} = ?", "ru": "{formula} = ?"},
)
_THOUGHTS: dict[Sign, Phrase] = {
    "+": {"en": "{n} is added to it", "ru": "к нему прибавляют {n}"},
    "-": {"en": "{n} is taken away from it", "ru": "от него отнимают {n}"},
    "*": {"en": "it is multiplied by {n}", "ru": "его умножают на {n}"},
    "/": {"en": "it is divided by {n}", "ru": "его делят на {n}"},
}
_THOUGHT_FRAME: Phrase = {
    "en": "Somebody thinks of the number {start}. Then {thoughts}. What has become of it?",
    "ru": "Кто-то задумывает число {start}. Затем {thoughts}. Каким оно стало?",
}
_THEN: Phrase = {"en": ", then ", "ru": ", затем "}
_STORY: dict[Sign, Phrase] = {
    "+": {"en": "{name} gets {n} more.", "ru": "{name} получает ещё {n}."},
    "-": {"en": "{name} gives {n} away.", "ru": "{name} отдаёт {n}."},
    "*": {
        "en": "Then the number of {things} becomes {times} as large.",
        "ru": "Затем число {things} увеличивается в {times}.",
    },
    "/": {
        "en": "{name} divides them into {parts} and keeps one of these.",
        "ru": "{name} делит их на {parts} и оставляет себе одну.",
    },
}
_STORY_FRAME: Phrase = {
    "en": "{owner} has {start}. {story} How many {things} does {owner} have now?",
    "ru": "У {owner} {start}. {story} Сколько {things} теперь у {owner}?",
}
_NAMES = (
    ("Anna", "Анна", "Анны"),
    ("Boris", "Борис", "Бориса"),
    ("Vera", "Вера", "Веры"),
    ("Ivan", "Иван", "Ивана"),
    ("Olga", "Ольга", "Ольги"),
    ("Pavel", "Павел", "Павла"),
)
_THINGS = (
    Counted(english=("apple", "apples"), russian=("яблоко", "яблока", "яблок")),
    Counted(english=("coin", "coins"), russian=("монета", "монеты", "монет")),
    Counted(english=("book", "books"), russian=("книга", "книги", "книг")),
    Counted(english=("marble", "marbles"), russian=("шарик", "шарика", "шариков")),
    Counted(english=("nut", "nuts"), russian=("орех", "ореха", "орехов")),
)
_PARTS = Counted(
    english=("equal part", "equal parts"),
    russian=("равную часть", "равные части", "равных частей"),
)


def _as_orders(rng: Random, start: int, operations: list[Operation], language: Language) -> str:
    orders = " ".join(_ORDERS[sign][language].format(n=number) for sign, number in operations)
    return rng.choice(_ORDERS_FRAMES)[language].format(start=start, orders=orders)


def _as_thought(rng: Random, start: int, operations: list[Operation], language: Language) -> str:
    parts = [_THOUGHTS[sign][language].format(n=number) for sign, number in operations]
    return _THOUGHT_FRAME[language].format(start=start, thoughts=_THEN[language].join(parts))


def _as_formula(rng: Random, start: int, operations: list[Operation], language: Language) -> str:
    formula = str(start)
    for index, (sign, number) in enumerate(operations):
        formula = f"{f'({formula})' if index else formula} {sign} {number}"
    return rng.choice(_FORMULA_FRAMES)[language].format(formula=formula)


def _as_story(rng: Random, start: int, operations: list[Operation], language: Language) -> str:
    english, russian, of_name = rng.choice(_NAMES)
    things = rng.choice(_THINGS)
    words = {
        "name": english if language == "en" else russian,
        "owner": english if language == "en" else of_name,
        "things": things.many(language),
    }
    story = " ".join(
        _STORY[sign][language].format(
            **words,
            n=number,
            times=counted(number, TIMES, language),
            parts=counted(number, _PARTS, language),
        )
        for sign, number in operations
    )
    return _STORY_FRAME[language].format(
        **words, start=counted(start, things, language), story=story
    )
