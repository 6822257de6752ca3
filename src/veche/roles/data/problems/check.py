"""Whether an answer is right, however it is put: numbers, dates, days, lists, yes and no.

The right answer's own form says what is looked for: 27, 2024-03-05, Thursday, [3, 1], yes.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date

from veche.roles.data.problems.calendar import MONTHS, WEEKDAYS

_MARK = re.compile(
    r"\b(?:answer|ответ(?:ом)?)\b(?:\s+(?:is|будет|равен))?\s*[:—–]?\s*", re.IGNORECASE
)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(
    r"(?<![\w.,])[-−]?(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[\u00a0\u202f ]\d{3})+|\d+)(?!\d)"
    r"(?:\.\d+|,\d+(?![\d,]))?"
)
_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_DOTTED = re.compile(r"\b(\d{1,2})\.(\d{1,2})\.(\d{4})\b")
_MONTH_STEMS = {
    name.lower()[:3]: number
    for names in MONTHS.values()
    for number, name in enumerate(names, start=1)
} | {"май": 5}
_DAY_MONTH = re.compile(
    r"\b(\d{1,2})(?:st|nd|rd|th|-?го|-?е)?\s+(?:of\s+)?([a-zа-я]+)\.?,?(?:\s+(\d{4}))?",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(
    r"\b([a-z]+)\.?\s+(\d{1,2})(?:st|nd|rd|th)?\b(?:,?\s+(\d{4}))?", re.IGNORECASE
)
_WEEKDAY_STEMS = {
    stem: index
    for stems in (
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
        ("понедельник", "вторник", "сред", "четверг", "пятниц", "суббот", "воскресень"),
    )
    for index, stem in enumerate(stems)
}
_WEEKDAY = re.compile(
    r"\b(mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs|ur)?(?:day)?\b"
    r"|\b(понедельник|вторник|сред|четверг|пятниц|суббот|воскресень)[а-я]{0,2}\b",
    re.IGNORECASE,
)
_TRUTHS = {"yes": True, "да": True, "true": True, "no": False, "нет": False, "false": False}
_TRUTH = re.compile(rf"\b({'|'.join(_TRUTHS)})\b", re.IGNORECASE)
_LIST = re.compile(r"\[([^\[\]]*)\]")
_RUN = re.compile(r"[-−]?\d+(?:\s*(?:,|;|и|and|,\s*and)?\s+[-−]?\d+|\s*[,;]\s*[-−]?\d+)+")
_INTEGER = re.compile(r"[-−]?\d+")


def is_right(final_answer: str, said: str) -> bool:
    r"""Return whether a text gives the right answer; a text that gives none does not.

    Args:
        final_answer: the right one, as a made problem has it.
        said: what somebody answered, reasoning included: its last marked answer counts ("Answer:
            …", "Ответ: …", "\boxed{…}"), or, where there is no mark, what it says last.
    """
    found = answer_in(final_answer, said)
    return same_answer(found, answer_in(final_answer, final_answer))


def answer_in(final_answer: str, said: str) -> object | None:
    """Return the answer that a text gives, in a form to compare; None where it gives none.

    Args:
        final_answer: any answer of the kind that is looked for, such as the right one.
        said: the text.
    """
    read = _reader(final_answer)
    said = re.sub(r"\s*\n\s*", "\n", re.sub(r"[ \t]+", " ", said))
    marked = _marked(said)
    if marked is not None and (found := read(marked, True)) is not None:
        return found
    return read(said, False)


def is_checkable(final_answer: str) -> bool:
    """Return whether this is a right answer of a kind that can be looked for."""
    return _kind_of(final_answer) is not None


def same_answer(one: object | None, other: object | None) -> bool:
    """Return whether two of `answer_in` are the same; nothing is the same as no answer.

    A date without a year is that day of any year: the question had one.
    """
    if isinstance(one, tuple) and isinstance(other, tuple) and None in (one[:1] + other[:1]):
        return one[1:] == other[1:]
    return one is not None and one == other


_LEAP_YEAR = 2000
_Parts = tuple[int | None, int, int]
"""(year, month, day)."""
_Read = Callable[[str, bool], object | None]
"""Of (text, whether it is behind a mark): there the first thing counts, else the last."""


def _reader(final_answer: str) -> _Read:
    read = _kind_of(final_answer)
    if read is None:
        raise ValueError(f"{final_answer!r} is no answer that can be checked")
    return read


def _kind_of(final_answer: str) -> _Read | None:
    text = final_answer.strip().lower()
    if text.startswith("["):
        return _list
    if _ISO.fullmatch(text):
        return _date
    if text in _TRUTHS:
        return _truth
    if any(text in (name.lower() for name in names) for names in WEEKDAYS.values()):
        return _weekday
    return _number if _NUMBER.fullmatch(text) else None


def _marked(said: str) -> str | None:
    """Return what is behind the last mark, to the end of its line."""
    if boxed := _BOXED.findall(said):
        return str(boxed[-1])
    marks = [mark for mark in _MARK.finditer(said) if said[mark.end() :].strip()]
    return said[marks[-1].end() :].strip().splitlines()[0] if marks else None


def _number(text: str, is_marked: bool) -> object | None:
    if is_marked:
        text = text.rpartition("=")[2]
    found = [_value(match) for match in _NUMBER.findall(text)]
    return _chosen(found, is_marked)


def _value(text: str) -> float:
    plain = re.sub(r"[\u00a0\u202f ]", "", text.replace("−", "-"))
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    return float(plain.replace(",", "."))


def _date(text: str, is_marked: bool) -> object | None:
    found: list[tuple[int, _Parts]] = []
    for match in _ISO.finditer(text):
        year, month, day = map(int, match.groups())
        found.append((match.start(), (year, month, day)))
    for match in _DOTTED.finditer(text):
        day, month, year = map(int, match.groups())
        found.append((match.start(), (year, month, day)))
    for match in _DAY_MONTH.finditer(text):
        found += _worded(match.start(), match[2], match[1], match[3])
    for match in _MONTH_DAY.finditer(text):
        found += _worded(match.start(), match[1], match[2], match[3])
    real = [parts for _, parts in sorted(found, key=lambda pair: pair[0]) if _is_real(parts)]
    return _chosen(real, is_marked)


def _worded(at: int, month: str, day: str, year: str | None) -> list[tuple[int, _Parts]]:
    number = _MONTH_STEMS.get(month.lower()[:3])
    if number is None:
        return []
    return [(at, (int(year) if year else None, number, int(day)))]


def _is_real(parts: _Parts) -> bool:
    year, month, day = parts
    try:
        date(_LEAP_YEAR if year is None else year, month, day)
    except ValueError:
        return False
    return True


def _weekday(text: str, is_marked: bool) -> object | None:
    found = [_WEEKDAY_STEMS[(a or b).lower()] for a, b in _WEEKDAY.findall(text)]
    return _chosen(found, is_marked)


def _truth(text: str, is_marked: bool) -> object | None:
    found = [_TRUTHS[word.lower()] for word in _TRUTH.findall(text)]
    begins = _TRUTH.match(text.strip())
    return _chosen(found, is_marked or begins is not None)


def _list(text: str, is_marked: bool) -> object | None:
    found = [
        tuple(_whole(number) for number in _INTEGER.findall(inside))
        for inside in _LIST.findall(text)
        if re.fullmatch(r"[\s\d,;−-]*", inside)
    ]
    if not found:
        found = [tuple(map(_whole, _INTEGER.findall(run[0]))) for run in _RUN.finditer(text)]
    return _chosen(found, is_marked)


def _whole(text: str) -> int:
    return int(text.replace("−", "-"))


def _chosen(found: Sequence[object], is_first: bool) -> object | None:
    if not found:
        return None
    return found[0 if is_first else -1]
