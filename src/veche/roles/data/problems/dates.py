"""Reasoning about dates and days of the week: so many days and weeks later, or earlier."""

from collections.abc import Sequence
from datetime import date, timedelta
from functools import partial
from random import Random
from typing import Any

from veche.core.language import Language, Phrase
from veche.roles.data.problems.calendar import spelt_date, spelt_weekday
from veche.roles.data.problems.numerals import DAYS, WEEKS, Counted, counted
from veche.roles.data.problems.puzzle import Move, Puzzle, num_moves

Shift = tuple[str, int]
"""("days" or "weeks", how many: negative is earlier)."""
_UNITS: dict[str, tuple[Counted, int]] = {"days": (DAYS, 1), "weeks": (WEEKS, 7)}
_FIRST, _LAST = date(2001, 1, 1), date(2049, 12, 31)
_WEEK = 7


def dates(rng: Random, difficulty: int, language: Language) -> Puzzle[Any]:
    """Return a chain of shifts; its answer is a date (ISO 8601), or a day of the week."""
    shifts = [_shift(rng, difficulty) for _ in range(num_moves(difficulty))]
    if rng.random() < 0.5:
        return _weekday_puzzle(rng, difficulty, language, shifts)
    start = _FIRST + timedelta(days=rng.randrange((_LAST - _FIRST).days))
    return Puzzle(
        kind="dates",
        intent="date",
        language=language,
        difficulty=difficulty,
        question=_asked(rng, _DATE_FRAMES, spelt_date(start, language), shifts, language),
        facts=(start.isoformat(), *shifts),
        start=start,
        moves=tuple(
            Move(
                apply=partial(_later, shift),
                slip=partial(_date_slip, shift),
                say=partial(_line, shift, partial(spelt_date, language=language), language),
            )
            for shift in shifts
        ),
        answer_of=date.isoformat,
        spell=partial(spelt_date, language=language),
    )


def _weekday_puzzle(
    rng: Random, difficulty: int, language: Language, shifts: list[Shift]
) -> Puzzle[int]:
    start = rng.randrange(_WEEK)
    spell = partial(spelt_weekday, language=language)
    return Puzzle(
        kind="dates",
        intent="weekday",
        language=language,
        difficulty=difficulty,
        question=_asked(rng, _WEEKDAY_FRAMES, spell(start), shifts, language),
        facts=(start, *shifts),
        start=start,
        moves=tuple(
            Move(
                apply=partial(_later_weekday, shift),
                slip=_weekday_slip,
                say=partial(_line, shift, spell, language),
            )
            for shift in shifts
        ),
        answer_of=spell,
        spell=spell,
    )


def _shift(rng: Random, difficulty: int) -> Shift:
    if difficulty > 2 and rng.random() < 0.3:
        unit, number = "weeks", rng.randint(1, difficulty)
    else:
        unit, number = "days", rng.randint(1, 5 * difficulty)
    return unit, number if difficulty == 1 or rng.random() < 0.6 else -number


def _days(shift: Shift) -> int:
    unit, number = shift
    return number * _UNITS[unit][1]


def _later(shift: Shift, day: date) -> date:
    return day + timedelta(days=_days(shift))


def _later_weekday(shift: Shift, day: int) -> int:
    return (day + _days(shift)) % _WEEK


def _date_slip(shift: Shift, before: date, right: date, rng: Random) -> date:
    """Miscount, or go the other way."""
    other_way = before - timedelta(days=_days(shift))
    off = right + timedelta(days=rng.choice((-7, -2, -1, 1, 2, 7)))
    return rng.choice((other_way, off, off))


def _weekday_slip(before: int, right: int, rng: Random) -> int:
    return (right + rng.choice((-2, -1, 1, 2))) % _WEEK


def _line(shift: Shift, spell: Any, language: Language, before: Any, after: Any) -> str:
    unit, number = shift
    sign = "+" if number > 0 else "-"
    return (
        f"{spell(before)} {sign} {counted(abs(number), _UNITS[unit][0], language)} = {spell(after)}"
    )


# --- wordings -------------------------------------------------------------------------------------

_Wording = tuple[Phrase, Phrase, Phrase]
"""The frame, and what is said of a shift forward and of one back."""

_DATE_FRAMES: tuple[_Wording, ...] = (
    (
        {
            "en": "A meeting is planned for {start}. It is moved {shifts}. What is its date now?",
            "ru": "Встреча назначена на {start}. Её переносят {shifts}. Какого числа она теперь?",
        },
        {"en": "{n} later", "ru": "на {n} позже"},
        {"en": "{n} earlier", "ru": "на {n} раньше"},
    ),
    (
        {
            "en": "Start from {start} and go {shifts}. Which date do you get?",
            "ru": "Начни с {start} и отсчитай {shifts}. Какая дата получится?",
        },
        {"en": "{n} forward", "ru": "{n} вперёд"},
        {"en": "{n} back", "ru": "{n} назад"},
    ),
    (
        {
            "en": "Somebody marks {start} and moves the mark {shifts}. Where is it?",
            "ru": "Кто-то отмечает {start} и сдвигает отметку {shifts}. Где она теперь?",
        },
        {"en": "{n} ahead", "ru": "на {n} вперёд"},
        {"en": "{n} back", "ru": "на {n} назад"},
    ),
)
_WEEKDAY_FRAMES: tuple[_Wording, ...] = (
    (
        {
            "en": "A lesson is on {start}. It is moved {shifts}. On which day of the week is it?",
            "ru": "День урока — {start}. Его переносят {shifts}. Какой это день недели?",
        },
        {"en": "{n} later", "ru": "на {n} позже"},
        {"en": "{n} earlier", "ru": "на {n} раньше"},
    ),
    (
        {
            "en": "Suppose that today is {start}. Count {shifts}. What day do you get?",
            "ru": "Пусть сегодня {start}. Отсчитай {shifts}. Какой день получится?",
        },
        {"en": "{n} forward", "ru": "{n} вперёд"},
        {"en": "{n} back", "ru": "{n} назад"},
    ),
)
_THEN: Phrase = {"en": ", then {shift}", "ru": ", затем {shift}"}


def _asked(
    rng: Random, frames: Sequence[_Wording], start: str, shifts: Sequence[Shift], language: Language
) -> str:
    frame, forward, back = rng.choice(frames)
    told = []
    for unit, number in shifts:
        amount = counted(abs(number), _UNITS[unit][0], language, is_object=True)
        told.append((forward if number > 0 else back)[language].format(n=amount))
    joined = told[0] + "".join(_THEN[language].format(shift=shift) for shift in told[1:])
    return frame[language].format(start=start, shifts=joined)
