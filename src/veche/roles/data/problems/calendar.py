"""Dates and days of the week, as both languages write them."""

from datetime import date

from veche.core.language import Language

MONTHS: dict[Language, tuple[str, ...]] = {
    "en": (
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    ),
    "ru": (
        "января", "февраля", "марта", "апреля", "мая", "июня",
        "июля", "августа", "сентября", "октября", "ноября", "декабря",
    ),
}  # fmt: skip
"""As in a date: in Russian, the genitive."""
WEEKDAYS: dict[Language, tuple[str, ...]] = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "ru": ("понедельник", "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье"),
}


def spelt_date(day: date, language: Language) -> str:
    """Return 5 March 2024, or 5 марта 2024 года."""
    text = f"{day.day} {MONTHS[language][day.month - 1]} {day.year}"
    return text if language == "en" else f"{text} года"


def spelt_weekday(index: int, language: Language) -> str:
    """Return the name of a day of the week; Monday is 0."""
    return WEEKDAYS[language][index]
