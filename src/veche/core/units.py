"""Numbers as people read and write them."""

import re

from veche.core.errors import InputError

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "K", "M", "B", "T")


def format_bytes(num_bytes: float) -> str:
    """Return e.g. `56.87 GiB`."""
    value, power = _scale(num_bytes, 1024, len(_BINARY) - 1)
    return f"{value:.0f} B" if power == 0 else f"{value:.2f} {_BINARY[power]}"


def format_count(count: float) -> str:
    """Return e.g. `30.53 B` for 30.53 thousand million."""
    value, power = _scale(count, 1000, len(_DECIMAL) - 1)
    return f"{value:.0f}" if power == 0 else f"{value:.2f} {_DECIMAL[power]}"


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


def _scale(value: float, base: int, limit: int) -> tuple[float, int]:
    power = 0
    while abs(value) >= base and power < limit:
        value /= base
        power += 1
    return value, power
