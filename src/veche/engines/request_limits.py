"""Refuse numbers of a request that no model can follow, and texts that no tokenizer can read."""

from numbers import Integral, Real
from typing import cast

from veche.core.errors import InputError

_LEAST_FACTOR, _MOST_FACTOR = 1e-6, 1e6


def require_whole(name: str, value: object, *, least: int) -> None:
    """Refuse what is no whole number of at least `least`.

    Raises:
        InputError: names the number and its range.
    """
    if not isinstance(value, Integral) or cast("int", value) < least:
        raise InputError(f"{name} {value!r} is not a whole number of at least {least}")


def require_share(name: str, value: object, *, is_zero_allowed: bool) -> None:
    """Refuse what is no number between 0 and 1.

    Raises:
        InputError: names the number and its range.
    """
    is_share = isinstance(value, Real) and 0 <= cast("float", value) <= 1
    if not is_share or (value == 0 and not is_zero_allowed):
        raise InputError(f"{name} {value!r} is not in {'[' if is_zero_allowed else '('}0, 1]")


def require_factor(name: str, value: object, *, is_zero_allowed: bool) -> None:
    """Refuse a factor of logits with which they would not be numbers of float32 any more.

    Raises:
        InputError: names the number and its range.
    """
    is_factor = isinstance(value, Real) and _LEAST_FACTOR <= cast("float", value) <= _MOST_FACTOR
    if not is_factor and not (is_zero_allowed and value == 0):
        ends = f"{_LEAST_FACTOR:g}..{_MOST_FACTOR:g}"
        raise InputError(f"{name} {value!r} is not {'0 or ' if is_zero_allowed else ''}in {ends}")


def require_stop_texts(stop: object) -> None:
    """Refuse a single text, which would be read letter by letter, and empty stop texts.

    Raises:
        InputError: an empty text would stop every answer before its first word.
    """
    if not isinstance(stop, tuple) or not all(isinstance(text, str) and text for text in stop):
        raise InputError(
            f"stop {stop!r} is not a tuple of texts that have letters",
            hint='write them as ("text",); () stops nowhere',
        )


def require_text(text: str) -> None:
    """Refuse a text that UTF-8 cannot write: it holds half of a surrogate pair.

    Raises:
        InputError: says where.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text is no Unicode text: half of a surrogate pair at letter {error.start}",
            hint="read its file as UTF-8",
        ) from error
