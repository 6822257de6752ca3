"""Draw a dial: what each value costs, with its intervals."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from veche.core.files import atomic_writer
from veche.core.language import Language
from veche.experts.bootstrap import Interval
from veche.experts.dial.figures import Context
from veche.experts.dial.phrases import phrase
from veche.experts.dial.report import ContextRow, DialReport, Row
from veche.experts.figure import new_figure, png_of

_DPI = 120
_COLORS: dict[Context, str] = {"short": "#1b6ca8", "long": "#c1571a"}
_GREY = "#666666"
_Point = tuple[float, Interval]


def plot_dial(path: Path, report: DialReport, *, language: Language = "en") -> None:
    """Write a PNG: one panel a figure, or both curves of the adaptive mode in one.

    Args:
        path: of the PNG.
        report: what was measured.
        language: of the words in the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(figsize=(11, 8.2), dpi=_DPI)
    title = phrase("title", language, name=report.dial, model=Path(report.model).name)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    if report.dial == "adaptive":
        _draw_adaptive(figure, report, language)
    else:
        _draw_panels(figure, report, language)
    tokens = report.context_tokens
    caption = phrase(
        "caption",
        language,
        windows=report.num_windows,
        base=f"{report.base:g}",
        short=tokens["short"],
        long=tokens.get("long", tokens["short"]),
    )
    figure.supxlabel(caption, fontsize=9, color=_GREY)
    with atomic_writer(path) as file:
        file.write(png_of(figure))


def _draw_panels(figure: Any, report: DialReport, language: Language) -> None:
    panels: list[tuple[str, Callable[[ContextRow], Interval]]] = [
        ("axis_nll", lambda row: row.nll_delta),
        ("axis_kl", lambda row: row.kl),
        ("axis_top1", lambda row: row.top1_agreement),
    ]
    axes = figure.subplots(2, 2).ravel()
    for axis, (key, of) in zip(axes, panels, strict=False):
        for context in report.context_tokens:
            points = [(row.value, of(row.contexts[context])) for row in report.rows]
            _curve(axis, points, phrase(f"curve_{context}", language), _COLORS[context])
        axis.set_ylabel(phrase(key, language))
    axes[0].axhline(0, color=_GREY, linewidth=0.7)
    _draw_last(axes[3], report, language)
    for axis in axes:
        _finish(axis, report, language)
    axes[0].legend(frameon=False)


def _draw_last(axis: Any, report: DialReport, language: Language) -> None:
    """Draw the speed; of temperatures, which have none, the calibration."""
    if report.dial == "temperature":
        for context in report.context_tokens:
            values = [row.value for row in report.rows]
            errors = [row.contexts[context].ece for row in report.rows]
            axis.plot(values, errors, "o-", color=_COLORS[context])
        axis.set_ylabel(phrase("axis_ece", language))
        return
    speeds = [(row.value, row.speed_ratio) for row in report.rows if row.speed_ratio is not None]
    base: list[_Point] = [(report.base, Interval(mean=1.0, low=1.0, high=1.0))]
    _curve(axis, sorted([*speeds, *base], key=_value), "", "#3a7d44")
    axis.set_ylabel(phrase("axis_speed", language))


def _draw_adaptive(figure: Any, report: DialReport, language: Language) -> None:
    axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for context, color in _COLORS.items():
        if context not in report.context_tokens:
            continue
        name = phrase(f"curve_{context}", language)
        fixed = [(row.value, row.contexts[context].nll_delta) for row in report.fixed]
        _curve(axes[0], fixed, phrase("curve_fixed", language, context=name), color, marker="o--")
        label = phrase("curve_adaptive", language, context=name)
        _curve(axes[0], _adaptive(report.rows, context, "nll_delta"), label, color, marker="s-")
        _curve(axes[1], _adaptive(report.rows, context, "over_fixed"), name, color, marker="s-")
    axes[0].set_ylabel(phrase("axis_nll", language))
    axes[0].legend(frameon=False)
    axes[1].set_ylabel(phrase("axis_over_fixed", language))
    axes[1].axhline(0, color=_GREY, linewidth=0.7)
    for axis in axes:
        _finish(axis, report, language)


def _adaptive(rows: Sequence[Row], context: Context, figure: str) -> list[_Point]:
    """Return an adaptive curve over the experts that were really used."""
    points = []
    for row in rows:
        each = row.contexts[context]
        interval = getattr(each, figure)
        if each.experts is not None and interval is not None:
            points.append((each.experts.mean, interval))
    return sorted(points, key=_value)


def _value(point: _Point) -> float:
    return point[0]


def _curve(
    axis: Any, points: Sequence[_Point], label: str, color: str, *, marker: str = "o-"
) -> None:
    values = [value for value, _ in points]
    means = [interval.mean for _, interval in points]
    axis.plot(values, means, marker, color=color, label=label, markersize=4)
    low, high = ([getattr(interval, end) for _, interval in points] for end in ("low", "high"))
    axis.fill_between(values, low, high, color=color, alpha=0.18, linewidth=0)


def _finish(axis: Any, report: DialReport, language: Language) -> None:
    axis.set_xlabel(phrase(f"dial_{report.dial}", language))
    axis.axvline(report.base, color=_GREY, linestyle=":", linewidth=1)
    if report.dial in ("rope_theta", "yarn"):
        values = [row.value for row in report.rows]
        axis.set_xscale("log")
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.minorticks_off()
    elif report.dial == "top_k":
        axis.locator_params(axis="x", integer=True)
