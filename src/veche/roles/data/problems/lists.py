"""Manipulation of short lists of numbers: turn round, sort, drop, put in, add up."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from veche.core.language import Language, Phrase
from veche.roles.data.problems.puzzle import Move, Puzzle, num_moves

Numbers = tuple[int, ...]
Operation = tuple[str, int]
"""(name in `_OPERATIONS` or `_ENDINGS`, number; 0 where it takes none)."""
_LEAST = 2
"""Numbers that a list has at least, so that turning it round means something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deed:
    """One operation.

    Attributes:
        apply: of (list, number); None where it cannot be done.
        order: how it is ordered.
        told: how it is told that it is done.
        line: what a solution calls it.
    """

    apply: Callable[[Numbers, int], Numbers | None]
    order: Phrase
    told: Phrase
    line: Phrase


def _without(numbers: Numbers, number: int) -> Numbers:
    at = numbers.index(number)
    return (*numbers[:at], *numbers[at + 1 :])


_OPERATIONS: dict[str, _Deed] = {
    "reverse": _Deed(
        apply=lambda numbers, _: numbers[::-1],
        order={"en": "reverse it", "ru": "переверни его"},
        told={"en": "it is reversed", "ru": "его переворачивают"},
        line={"en": "Reversed", "ru": "Перевёрнут"},
    ),
    "ascending": _Deed(
        apply=lambda numbers, _: tuple(sorted(numbers)),
        order={"en": "sort it in ascending order", "ru": "отсортируй его по возрастанию"},
        told={
            "en": "it is sorted from smallest to largest",
            "ru": "его сортируют от меньшего к большему",
        },
        line={"en": "Ascending", "ru": "По возрастанию"},
    ),
    "descending": _Deed(
        apply=lambda numbers, _: tuple(sorted(numbers, reverse=True)),
        order={"en": "sort it in descending order", "ru": "отсортируй его по убыванию"},
        told={
            "en": "it is sorted from largest to smallest",
            "ru": "его сортируют от большего к меньшему",
        },
        line={"en": "Descending", "ru": "По убыванию"},
    ),
    "drop_first": _Deed(
        apply=lambda numbers, _: numbers[1:],
        order={"en": "remove the first number", "ru": "убери первое число"},
        told={"en": "its first number is removed", "ru": "первое число убирают"},
        line={"en": "Without the first", "ru": "Без первого"},
    ),
    "drop_last": _Deed(
        apply=lambda numbers, _: numbers[:-1],
        order={"en": "remove the last number", "ru": "убери последнее число"},
        told={"en": "its last number is removed", "ru": "последнее число убирают"},
        line={"en": "Without the last", "ru": "Без последнего"},
    ),
    "drop_largest": _Deed(
        apply=lambda numbers, _: _without(numbers, max(numbers)),
        order={"en": "remove the largest number", "ru": "убери наибольшее число"},
        told={"en": "its largest number is removed", "ru": "наибольшее число убирают"},
        line={"en": "Without the largest", "ru": "Без наибольшего"},
    ),
    "drop_smallest": _Deed(
        apply=lambda numbers, _: _without(numbers, min(numbers)),
        order={"en": "remove the smallest number", "ru": "убери наименьшее число"},
        told={"en": "its smallest number is removed", "ru": "наименьшее число убирают"},
        line={"en": "Without the smallest", "ru": "Без наименьшего"},
    ),
    "append": _Deed(
        apply=lambda numbers, number: (*numbers, number),
        order={"en": "put {n} at the end", "ru": "припиши {n} в конец"},
        told={"en": "{n} is put at its end", "ru": "в конец приписывают {n}"},
        line={"en": "With {n} at the end", "ru": "С числом {n} в конце"},
    ),
    "prepend": _Deed(
        apply=lambda numbers, number: (number, *numbers),
        order={"en": "put {n} at the beginning", "ru": "припиши {n} в начало"},
        told={"en": "{n} is put at its beginning", "ru": "в начало приписывают {n}"},
        line={"en": "With {n} at the beginning", "ru": "С числом {n} в начале"},
    ),
    "add": _Deed(
        apply=lambda numbers, number: tuple(each + number for each in numbers),
        order={"en": "add {n} to each number", "ru": "прибавь {n} к каждому числу"},
        told={"en": "{n} is added to each number", "ru": "к каждому числу прибавляют {n}"},
        line={"en": "With {n} added to each", "ru": "К каждому прибавлено {n}"},
    ),
    "swap_ends": _Deed(
        apply=lambda numbers, _: (numbers[-1], *numbers[1:-1], numbers[0]),
        order={
            "en": "swap the first and the last number",
            "ru": "поменяй местами первое и последнее число",
        },
        told={
            "en": "its first and last numbers change places",
            "ru": "первое и последнее число меняют местами",
        },
        line={"en": "With its ends swapped", "ru": "С переставленными концами"},
    ),
}
_TAKING = ("drop_first", "drop_last", "drop_largest", "drop_smallest")
_WITH_NUMBER = ("append", "prepend", "add")
_ENDINGS: dict[str, _Deed] = {
    "sum": _Deed(
        apply=lambda numbers, _: (sum(numbers),),
        order={"en": "What is the sum of its numbers?", "ru": "Какова сумма его чисел?"},
        told={"en": "How much do its numbers add up to?", "ru": "Сколько дают его числа вместе?"},
        line={"en": "The sum", "ru": "Сумма"},
    ),
    "largest": _Deed(
        apply=lambda numbers, _: (max(numbers),),
        order={
            "en": "Which of its numbers is the largest?",
            "ru": "Какое из его чисел наибольшее?",
        },
        told={"en": "What is its largest number?", "ru": "Чему равно его наибольшее число?"},
        line={"en": "The largest", "ru": "Наибольшее"},
    ),
}
_DEEDS = _OPERATIONS | _ENDINGS


def lists(rng: Random, difficulty: int, language: Language) -> Puzzle[Numbers]:
    """Return a chain of operations on a list; its answer is a list, or a number of one."""
    start, operations = _chain(rng, difficulty)
    has_ending = operations[-1][0] in _ENDINGS
    spell = (lambda numbers: str(numbers[0])) if has_ending else spelt_list
    return Puzzle(
        kind="lists",
        intent="list_number" if has_ending else "list",
        language=language,
        difficulty=difficulty,
        question=_asked(rng, start, operations, language),
        facts=(start, *operations),
        start=start,
        moves=tuple(
            Move(
                apply=partial(_applied, operation),
                slip=partial(_slip, operation),
                say=partial(_line, operation, language),
            )
            for operation in operations
        ),
        answer_of=spell,
        spell=spell,
    )


def spelt_list(numbers: Numbers) -> str:
    """Return [3, 1, 2]."""
    return f"[{', '.join(map(str, numbers))}]"


def _chain(rng: Random, difficulty: int) -> tuple[Numbers, list[Operation]]:
    start = tuple(rng.sample(range(1, 10 * difficulty + 1), 3 + difficulty // 3))
    total = num_moves(difficulty)
    ending = [(rng.choice(sorted(_ENDINGS)), 0)] if rng.random() < 0.3 else []
    numbers: Numbers = start
    operations: list[Operation] = []
    while len(operations) < total - len(ending):
        name = rng.choice(sorted(_OPERATIONS))
        operation = (name, rng.randint(1, 10 * difficulty) if name in _WITH_NUMBER else 0)
        result = _applied(operation, numbers)
        # Without two equal numbers, the largest and the smallest are never in doubt.
        if result is not None and result != numbers and len(set(result)) == len(result):
            operations.append(operation)
            numbers = result
    return start, [*operations, *ending]


def _applied(operation: Operation, numbers: Numbers) -> Numbers | None:
    name, number = operation
    if len(numbers) < _LEAST + (name in _TAKING):
        return None
    return _DEEDS[name].apply(numbers, number)


def _slip(operation: Operation, before: Numbers, right: Numbers, rng: Random) -> Numbers:
    """Forget the operation, lose or swap numbers, or miscount one."""
    at = rng.randrange(len(right))
    miscounted = (*right[:at], right[at] + rng.choice((-1, 1, 2)), *right[at + 1 :])
    if operation[0] in _ENDINGS:
        return miscounted
    lost = (*right[:at], *right[at + 1 :])
    other = (at + 1) % len(right)
    swapped = list(right)
    swapped[at], swapped[other] = swapped[other], swapped[at]
    return rng.choice((before, miscounted, lost or right, tuple(swapped)))


def _line(operation: Operation, language: Language, before: Numbers, after: Numbers) -> str:
    name, number = operation
    label = _DEEDS[name].line[language].format(n=number)
    if name == "sum":
        return f"{label}: {' + '.join(map(str, before))} = {after[0]}"
    return f"{label}: {after[0] if name in _ENDINGS else spelt_list(after)}"


# --- wordings -------------------------------------------------------------------------------------

_ORDERS: Phrase = {
    "en": "Take the list {start}{deeds}. {ending}",
    "ru": "Возьми список {start}{deeds}. {ending}",
}
_TOLD: tuple[Phrase, ...] = (
    {
        "en": "There is a list of numbers: {start}{deeds}. {ending}",
        "ru": "Есть список чисел: {start}{deeds}. {ending}",
    },
    {
        "en": "Somebody writes these numbers in a row: {start}{deeds}. {ending}",
        "ru": "Кто-то записывает ряд чисел: {start}{deeds}. {ending}",
    },
)
_LIST_ASKED: Phrase = {"en": "Which list is left?", "ru": "Какой список останется?"}
_LIST_TOLD: Phrase = {"en": "What does it look like now?", "ru": "Как он теперь выглядит?"}
_FIRST_ORDER: Phrase = {"en": ", {deed}", "ru": ", {deed}"}
_FIRST_TOLD: Phrase = {"en": ". First {deed}", "ru": ". Сначала {deed}"}
_THEN: Phrase = {"en": ", then {deed}", "ru": ", затем {deed}"}


def _asked(rng: Random, start: Numbers, operations: list[Operation], language: Language) -> str:
    is_told = rng.random() < 0.5
    ending = (_LIST_TOLD if is_told else _LIST_ASKED)[language]
    first, deeds = _FIRST_TOLD if is_told else _FIRST_ORDER, ""
    for name, number in operations:
        deed = _DEEDS[name]
        phrase = (deed.told if is_told else deed.order)[language].format(n=number)
        if name in _ENDINGS:
            ending = phrase
        else:
            deeds += (_THEN if deeds else first)[language].format(deed=phrase)
    frame = (rng.choice(_TOLD) if is_told else _ORDERS)[language]
    return frame.format(start=spelt_list(start), deeds=deeds, ending=ending)
