"""Find a number or a word in a log."""

import re
from collections.abc import Iterable

GIB = 1 << 30
MIB = 1 << 20
LARGEST = 1e18
"""Above it a number is damage."""
_UNITS = {"GiB": GIB, "GB": GIB, "MiB": MIB, "MB": MIB}
"""vLLM, SGLang and llama.cpp all divide by powers of two, also where they print "GB"."""


def first_text(text: str, *patterns: str) -> str | None:
    """Return the first group of the first pattern that says something, without quotation marks."""
    for pattern in patterns:
        if match := re.search(pattern, text):
            found: str = match[1].strip("'\"")
            if found not in {"None", "auto", ""}:
                return found
    return None


def first_int(text: str, *patterns: str) -> int | None:
    """Return the first group as a whole number; thousands may be separated by commas."""
    found = first_text(text, *patterns)
    number = None if found is None else _number(found.replace(",", ""))
    return None if number is None else int(number)


def first_float(text: str, *patterns: str) -> float | None:
    """Return the first group as a number."""
    found = first_text(text, *patterns)
    return None if found is None else _number(found)


def sizes(text: str, *patterns: str) -> list[int]:
    """Return all sizes of the first pattern that occurs; its groups are a number and a unit."""
    for pattern in patterns:
        pairs = [(_number(number), unit) for number, unit in re.findall(pattern, text)]
        if found := [round(number * _UNITS[unit]) for number, unit in pairs if number is not None]:
            return found
    return []


def _number(text: str) -> float | None:
    """Return a number of a damaged log as None: "1.2.3"."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number < LARGEST else None


def smallest(values: Iterable[int]) -> int | None:
    """Return the least of several ranks' values; None if there is none."""
    return min(values, default=None)


def largest(values: Iterable[int]) -> int | None:
    """Return the greatest of several ranks' values; None if there is none."""
    return max(values, default=None)
