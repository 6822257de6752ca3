"""What kind of token a text is: letters of a script, digits, punctuation, space."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

CLASSES: tuple[str, ...] = (
    "latin",
    "cyrillic",
    "other letters",
    "digits",
    "punctuation",
    "symbols",
    "space",
    "control",
)
"""Every class; a token's number in a recording is its place here."""

_BY_CATEGORY = {"N": "digits", "P": "punctuation", "S": "symbols", "Z": "space"}
_SCRIPTS = {"LATIN": "latin", "CYRILLIC": "cyrillic"}
_SPACES = "\t\n\v\f\r"


def token_class(text: str, *, is_control: bool = False) -> str:
    """Return the class of most of a token's characters; of equally many, the first one's.

    Space around other characters does not count, so ` совет` is cyrillic.

    Args:
        text: of the token; empty is control.
        is_control: it is one of the chat format's own tokens, whatever its text.
    """
    if is_control or not text:
        return "control"
    visible = text.strip()
    if not visible:
        return "space"
    counts = Counter(_class_of(character) for character in visible)
    return counts.most_common(1)[0][0]


def class_numbers(texts: Sequence[str], is_control: Sequence[bool]) -> list[int]:
    """Return the numbers of the classes of many tokens."""
    return [
        CLASSES.index(token_class(text, is_control=control))
        for text, control in zip(texts, is_control, strict=True)
    ]


def _class_of(character: str) -> str:
    if character in _SPACES:
        return "space"
    category = unicodedata.category(character)[0]
    if category in "LM":
        script = unicodedata.name(character, "").split(" ", maxsplit=1)[0]
        return _SCRIPTS.get(script, "other letters")
    return _BY_CATEGORY.get(category, "control")
