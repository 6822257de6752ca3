"""Reasoning about units: convert to smaller ones, add, take away, multiply."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from veche.core.language import Language, Phrase
from veche.roles.data.problems.measures import QUANTITIES, Quantity, Unit
from veche.roles.data.problems.numerals import TIMES, counted
from veche.roles.data.problems.puzzle import Move, Puzzle, num_moves

_LARGEST = 10_000_000
_Verb = Literal["convert", "+", "-", "*"]
_VERBS: tuple[_Verb, ...] = ("+", "-", "+", "-", "*")
_DEEP = 5
"""From this difficulty on, more than two units may meet in one problem."""


@dataclass(frozen=True, slots=True)
class _Amount:
    number: int
    unit: Unit


@dataclass(frozen=True, slots=True)
class _Change:
    """What is done: convert to `unit`, add or take away `number` of it, multiply by `number`."""

    verb: _Verb
    number: int
    unit: Unit


def units(rng: Random, difficulty: int, language: Language) -> Puzzle[_Amount]:
    """Return a chain of conversions and sums; its answer is a number of the last unit."""
    quantity = rng.choice(QUANTITIES)
    start, changes = _chain(rng, quantity, difficulty)
    asked = rng.choice((_as_orders, _as_story))
    return Puzzle(
        kind="units",
        intent="units",
        language=language,
        difficulty=difficulty,
        question=asked(quantity, start, changes, language),
        facts=(
            (start.number, start.unit.name),
            *((change.verb, change.number, change.unit.name) for change in changes),
        ),
        start=start,
        moves=tuple(
            Move(
                apply=partial(_applied, change),
                slip=partial(_slip, change),
                say=partial(_line, change, language),
            )
            for change in changes
        ),
        answer_of=lambda amount: str(amount.number),
        spell=lambda amount: counted(amount.number, amount.unit.words, language),
    )


def _chain(rng: Random, quantity: Quantity, difficulty: int) -> tuple[_Amount, list[_Change]]:
    deepest = len(quantity.units) - 1 if difficulty >= _DEEP else 1
    while True:
        first = rng.randrange(len(quantity.units) - 1)
        start = _Amount(rng.randint(1, 10 * difficulty), quantity.units[first])
        last = min(first + deepest, len(quantity.units) - 1)
        changes = _changes(rng, quantity, difficulty, start, first, last)
        amount: _Amount | None = start
        for change in changes:
            amount = None if amount is None else _applied(change, amount)
        if amount is not None and 0 < amount.number <= _LARGEST:
            return start, changes


def _changes(
    rng: Random, quantity: Quantity, difficulty: int, start: _Amount, first: int, last: int
) -> list[_Change]:
    """Return as many changes as a difficulty has, conversions among them."""
    total = num_moves(difficulty)
    num_conversions = min(rng.randint(1, last - first), total)
    at = sorted(rng.sample(range(total), num_conversions))
    at[0] = 0
    level, changes = first, []
    for index in range(total):
        if index in at:
            level += 1
            changes.append(_Change("convert", 0, quantity.units[level]))
        else:
            verb = rng.choice(_VERBS)
            most = min(difficulty, 9) if verb == "*" else _just_below(quantity, level, difficulty)
            changes.append(_Change(verb, rng.randint(2, max(2, most)), quantity.units[level]))
    return changes


def _just_below(quantity: Quantity, level: int, difficulty: int) -> int:
    """Return how many of a unit are added at most: less than one of the next larger."""
    factor = quantity.units[level - 1].size // quantity.units[level].size
    return min(factor - 1, 10 * difficulty)


def _applied(change: _Change, amount: _Amount) -> _Amount | None:
    if change.verb == "convert":
        return _Amount(amount.number * (amount.unit.size // change.unit.size), change.unit)
    if change.verb == "*":
        return _Amount(amount.number * change.number, amount.unit)
    number = amount.number + (change.number if change.verb == "+" else -change.number)
    return _Amount(number, amount.unit) if number > 0 else None


def _slip(change: _Change, before: _Amount, right: _Amount, rng: Random) -> _Amount:
    """Take a wrong factor, or the other operation, or miscount."""
    near = right.number + rng.choice((-10, -1, 1, 10))
    if change.verb == "convert":
        wrong = rng.choice((right.number * 10, right.number // 10, before.number * 100, near))
    else:
        other = {"+": -change.number, "-": change.number, "*": change.number}[change.verb]
        wrong = rng.choice((before.number + other, near, near))
    return _Amount(max(wrong, 1), right.unit)


def _line(change: _Change, language: Language, before: _Amount, after: _Amount) -> str:
    said, result = (counted(a.number, a.unit.words, language) for a in (before, after))
    if change.verb == "convert":
        return f"{said} = {result}"
    if change.verb == "*":
        return f"{said} * {change.number} = {result}"
    return f"{said} {change.verb} {counted(change.number, change.unit.words, language)} = {result}"


# --- wordings -------------------------------------------------------------------------------------

_ORDERS: dict[str, Phrase] = {
    "+": {"en": "add {n}", "ru": "прибавь {n}"},
    "-": {"en": "subtract {n}", "ru": "вычти {n}"},
    "*": {"en": "take {times} as much", "ru": "увеличь в {times}"},
}
_ORDERS_FRAME: Phrase = {
    "en": "Take {start}{orders}. How many {many} is that?",
    "ru": "Возьми {start}{orders}. Сколько {many} получится?",
}


def _as_orders(
    quantity: Quantity, start: _Amount, changes: Sequence[_Change], language: Language
) -> str:
    orders = [
        ", " + _ORDERS[change.verb][language].format(**_words(change, language))
        for change in changes
        if change.verb != "convert"
    ]
    return _ORDERS_FRAME[language].format(
        start=counted(start.number, start.unit.words, language, is_object=True),
        orders="".join(orders),
        many=changes[-1].unit.words.many(language),
    )


def _as_story(
    quantity: Quantity, start: _Amount, changes: Sequence[_Change], language: Language
) -> str:
    phrases = {"+": quantity.more, "-": quantity.less, "*": quantity.times}
    last = changes[-1].unit.words
    story = [
        quantity.has[language].format(start=counted(start.number, start.unit.words, language)),
        *(
            phrases[change.verb][language].format(**_words(change, language))
            for change in changes
            if change.verb != "convert"
        ),
        quantity.asked[language].format(unit=last.many("en") if language == "en" else last.within),
    ]
    return " ".join(story)


def _words(change: _Change, language: Language) -> dict[str, str]:
    return {
        "n": counted(change.number, change.unit.words, language, is_object=True),
        "times": counted(change.number, TIMES, language),
    }
