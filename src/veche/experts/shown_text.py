"""A text of any letters, as the font of a picture can show it."""

from functools import cache
from typing import Any


def shown_text(text: str, limit: int) -> str:
    """Return a text on one line, cut to `limit` characters; letters that the font lacks are □."""
    visible = text.replace("\n", "⏎").replace("\t", "→")
    cut = visible if len(visible) <= limit else visible[: limit - 1] + "…"
    known = _font().get_charmap()
    return "".join(letter if ord(letter) in known else "□" for letter in cut)


@cache
def _font() -> Any:
    """Return the font that matplotlib brings, and draws in where nothing else is chosen."""
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))
