"""The languages in which veche speaks to its user."""

import locale
import os
from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")

Phrase = Mapping[Language, str]
"""One message in every language; the same `{placeholders}` in each."""


def language_from_environment() -> Language:
    """Return "ru" when the user's locale is Russian, "en" otherwise."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            return "ru" if value.lower().startswith("ru") else "en"
    return "ru" if (locale.getlocale()[0] or "").lower().startswith(("ru", "russian")) else "en"


def spoken(phrases: Mapping[str, Phrase], key: str, language: Language, **values: object) -> str:
    """Return a phrase of a table in `language`, with its placeholders filled."""
    return phrases[key][language].format(**values)
