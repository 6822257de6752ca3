"""Draw a healing: the loss of its steps, and what held-out text says before and after."""

from pathlib import Path
from typing import Any

import numpy as np

from veche.core.files import atomic_writer
from veche.core.language import Language
from veche.experts.bootstrap import Interval
from veche.experts.figure import new_figure, png_of
from veche.roles.healing.phrases import phrase
from veche.roles.healing.report import HealReport

_DPI = 120
_BLUE, _ORANGE, _GREEN, _GREY = "#1b6ca8", "#c1571a", "#3a7d44", "#999999"
_SMOOTH = 10


def plot_healing(path: Path, report: HealReport, *, language: Language = "en") -> None:
    """Write a PNG with both.

    Args:
        path: of the PNG.
        report: what was done.
        language: of the words in the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(figsize=(11, 5.2), dpi=_DPI)
    name = Path(report.plan.lesson.student).name
    figure.suptitle(phrase("title", language, model=name), fontsize=15, fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_losses(left, report, language)
    _draw_heldout(right, report, language)
    share = report.recovery.recovered
    figure.supxlabel(
        phrase("caption", language, windows=report.heldout_windows, share=share_text(share)),
        fontsize=9,
        color="#666666",
    )
    with atomic_writer(path) as file:
        file.write(png_of(figure))


def share_text(share: Interval | None) -> str:
    """Return a share with its interval, in percent."""
    if share is None:
        return "–"
    if not np.isfinite(share.low):
        return f"{share.mean:.0%}"
    return f"{share.mean:.0%} [{share.low:.0%}, {share.high:.0%}]"


def _draw_losses(axis: Any, report: HealReport, language: Language) -> None:
    losses = np.asarray(report.losses)
    steps = np.arange(1, len(losses) + 1)
    axis.plot(steps, losses, color=_GREY, linewidth=0.8, label=phrase("curve_step", language))
    if len(losses) > _SMOOTH:
        mean = np.convolve(losses, np.ones(_SMOOTH) / _SMOOTH, mode="valid")
        label = phrase("curve_mean", language, count=_SMOOTH)
        axis.plot(steps[_SMOOTH - 1 :], mean, color=_BLUE, label=label)
    axis.set_title(phrase("panel_training", language))
    axis.set_xlabel(phrase("axis_step", language))
    axis.set_ylabel(phrase("axis_loss", language))
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


def _draw_heldout(axis: Any, report: HealReport, language: Language) -> None:
    bars = [("col_before", report.recovery.lost, _ORANGE)]
    if report.fitted is not None:
        bars.append(("col_fitted", report.fitted.left, _BLUE))
    bars.append(("col_after", report.recovery.left, _GREEN))
    for place, (_, interval, color) in enumerate(bars):
        axis.bar(place, interval.mean, color=color, width=0.6)
        if np.isfinite(interval.low):
            ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
            axis.errorbar(place, interval.mean, yerr=ends, color="#222222", capsize=4)
        axis.annotate(
            f"{interval.mean:+.3f}", (place, interval.mean), ha="left", va="bottom",
            xytext=(4, 3), textcoords="offset points", fontsize=10,
        )  # fmt: skip
    axis.set_xticks(range(len(bars)), [phrase(name, language) for name, _, _ in bars])
    axis.axhline(0, color=_GREY, linewidth=0.8)
    axis.set_title(phrase("panel_heldout", language))
    axis.set_ylabel(phrase("row_delta", language))
