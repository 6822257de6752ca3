"""A figure of matplotlib that needs no screen."""

from io import BytesIO
from typing import Any

from veche.core.errors import MissingExtraError

DPI = 130
WIDTH_INCHES = 12.0


def new_figure(**options: Any) -> Any:
    """Return an empty figure whose parts make room for each other.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots") from error
    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Any) -> bytes:
    """Return a figure as a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
