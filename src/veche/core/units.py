"""Numbers as people read and write them."""

import re

from veche.core.errors import InputError
from veche.core.language import Language

_BINARY: dict[Language, tuple[str, ...]] = {
    "en": ("B", "KiB", "MiB", "GiB", "TiB"),
    "ru": ("Б", "КиБ", "МиБ", "ГиБ", "ТиБ"),
}
_DECIMAL: dict[Language, tuple[str, ...]] = {
    "en": ("", "K", "M", "B", "T"),
    "ru": ("", "тыс.", "млн", "млрд", "трлн"),
}


def format_bytes(num_bytes: float, language: Language = "en") -> str:
    """Return e.g. `56.87 GiB`, in Russian `56,87 ГиБ`."""
    names = _BINARY[language]
    value, power = _scale(num_bytes, 1024, len(names) - 1)
    return f"{value:.0f} {names[0]}" if power == 0 else _two_digits(value, names[power], language)


def format_count(count: float, language: Language = "en") -> str:
    """Return e.g. `30.53 B` for 30.53 thousand million, in Russian `30,53 млрд`."""
    names = _DECIMAL[language]
    value, power = _scale(count, 1000, len(names) - 1)
    return f"{value:.0f}" if power == 0 else _two_digits(value, names[power], language)


def grouped(count: int, language: Language = "en") -> str:
    """Return e.g. `131,072`, in Russian `131 072` with a no-break space."""
    text = f"{count:,}"
    return text.replace(",", "\N{NO-BREAK SPACE}") if language == "ru" else text


def parse_count(text: str, flag: str) -> int:
    """Return a count that a user wrote: `131072`, `131_072`, `128k` (k = 1024), `1m`.

    Raises:
        InputError: it is none, or less than one.
    """
    match = re.fullmatch(r"([0-9][0-9_]{0,14}(?:\.[0-9]{1,6})?) ?([km]?)", text.strip().lower())
    factor = {"": 1, "k": 1024, "m": 1024 * 1024}
    count = float(match[1].replace("_", "")) * factor[match[2]] if match else 0.5
    if count < 1 or count != int(count):
        raise InputError(
            f"{flag} {text!r} is not a whole number of at least 1",
            hint="write it as 131072, 131_072 or 128k (k is 1024)",
        )
    return int(count)


def _two_digits(value: float, unit: str, language: Language) -> str:
    text = f"{value:.2f} {unit}"
    return text.replace(".", ",", 1) if language == "ru" else text


def _scale(value: float, base: int, limit: int) -> tuple[float, int]:
    power = 0
    while abs(value) >= base and power < limit:
        value /= base
        power += 1
    return value, power
