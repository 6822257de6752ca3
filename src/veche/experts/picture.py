"""Make a matplotlib figure without a window; write it as a PNG."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from veche.core.errors import MissingExtraError
from veche.core.files import atomic_writer


def new_figure(**options: Any) -> Any:
    """Return a figure that no window shows.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots") from error
    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, atomically."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    with atomic_writer(path) as file:
        file.write(buffer.getvalue())


def shown_text(text: str, limit: int) -> str:
    """Return a text as the picture's font can show it: one line, cut to `limit` characters."""
    visible = text.replace("\n", "⏎").replace("\t", "→")
    cut = visible if len(visible) <= limit else visible[: limit - 1] + "…"
    known = _font().get_charmap()
    return "".join(letter if ord(letter) in known else "□" for letter in cut)


@cache
def _font() -> Any:
    """Return the font that matplotlib brings, and draws in where nothing else is chosen."""
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))
