"""Stacked horizontal bars as SVG, in one text that needs nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLORS = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#9498a0", "#a463f2", "#97bbf5",
)  # fmt: skip
_LABEL_WIDTH, _BAR_WIDTH, _TOTAL_WIDTH = 190, 560, 130
_ROW, _BAR, _LEGEND = 26, 18, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its label and the length of each part, in the chart's unit."""

    label: str
    parts: Mapping[str, float]


def stacked_bars(
    title: str, bars: Sequence[Bar], names: Mapping[str, str], show: Callable[[float], str]
) -> str:
    """Return an SVG element.

    Args:
        title: what a reader who sees no picture is told.
        bars: from top to bottom.
        names: the parts in their order, and what the legend calls them.
        show: a part's or a bar's length as text.
    """
    longest = max((sum(bar.parts.values()) for bar in bars), default=0) or 1
    height = _LEGEND + _ROW * len(bars) + 6
    width = _LABEL_WIDTH + _BAR_WIDTH + _TOTAL_WIDTH
    colors = dict(zip(names, COLORS, strict=False))
    rows = [
        _bar(bar, _LEGEND + _ROW * index, longest, colors, names, show)
        for index, bar in enumerate(bars)
    ]
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{_legend(names, colors)}{''.join(rows)}</svg>"
    )


def _bar(
    bar: Bar,
    top: int,
    longest: float,
    colors: Mapping[str, str],
    names: Mapping[str, str],
    show: Callable[[float], str],
) -> str:
    x, middle = float(_LABEL_WIDTH), top + _BAR - 4
    drawn = [
        f'<text x="{_LABEL_WIDTH - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
    ]
    for name in names:
        length = bar.parts.get(name, 0.0)
        part = _BAR_WIDTH * length / longest
        if length:
            drawn.append(
                f'<rect x="{x:.2f}" y="{top}" width="{part:.2f}" height="{_BAR}" '
                f'fill="{colors[name]}"><title>{escape(names[name])}: {escape(show(length))}'
                "</title></rect>"
            )
        x += part
    total = escape(show(sum(bar.parts.values())))
    return "".join([*drawn, f'<text x="{x + 6:.2f}" y="{middle}">{total}</text>'])


def _legend(names: Mapping[str, str], colors: Mapping[str, str]) -> str:
    drawn, x = [], 0
    for name, words in names.items():
        drawn.append(
            f'<rect x="{x}" y="2" width="12" height="12" fill="{colors[name]}"/>'
            f'<text x="{x + 16}" y="13">{escape(words)}</text>'
        )
        x += 30 + 7 * len(words)
    return "".join(drawn)
