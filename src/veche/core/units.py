"""Numbers as people read them."""

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


def _scale(value: float, base: int, limit: int) -> tuple[float, int]:
    power = 0
    while abs(value) >= base and power < limit:
        value /= base
        power += 1
    return value, power
