"""Make a matplotlib figure without a window; write it as a PNG."""

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
