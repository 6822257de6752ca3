"""Draw what a steering does over its strength: effect above, collateral below."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from veche.core.files import atomic_writer
from veche.core.language import Language
from veche.experts.bootstrap import Interval
from veche.experts.figure import DPI, new_figure, png_of
from veche.experts.steering.basis import Finding
from veche.experts.steering.figures import Evaluation, StrengthFigures
from veche.experts.steering.phrases import phrase

_BLUE, _ORANGE, _GREEN = "#1b6ca8", "#c1571a", "#3a7d44"
_GREY = "#666666"
_Of = Callable[[StrengthFigures], Interval]


def plot_steering(
    path: Path, figures: Evaluation, finding: Finding, *, language: Language = "en"
) -> None:
    """Write a PNG of four panels.

    Args:
        path: of the PNG.
        figures: what was measured.
        finding: how the steering was found.
        language: of the words in the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(figsize=(11, 8), dpi=DPI)
    towards, away_from = finding.towards, finding.away_from
    title = phrase("title", language, towards=towards, away_from=away_from)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    ((changes, preference), (neutral, agreement)) = figure.subplots(2, 2)
    _curve(changes, figures, lambda row: row.effect.nll_for, _BLUE, towards)
    _curve(changes, figures, lambda row: row.effect.nll_against, _ORANGE, away_from)
    _curve(preference, figures, lambda row: row.effect.preference, _GREEN)
    _curve(neutral, figures, lambda row: row.collateral.nll, _BLUE, "ΔNLL")
    _curve(neutral, figures, lambda row: row.collateral.kl, _ORANGE, "KL")
    _curve(agreement, figures, lambda row: row.collateral.agreement, _GREEN, unsteered=1.0)
    labels = {
        "axis_effect": changes,
        "axis_preference": preference,
        "axis_neutral": neutral,
        "axis_agreement": agreement,
    }
    for key, axis in labels.items():
        axis.set_title(phrase(key, language))
        axis.set_xlabel(phrase("axis_strength", language))
        axis.grid(visible=True, linewidth=0.3)
    for axis in (changes, neutral):
        axis.legend(frameon=False)
    for axis in (changes, preference, neutral):
        axis.axhline(0, color=_GREY, linewidth=0.7)
    floor = figures.floor.collateral
    for axis, value, color in ((neutral, floor.kl, _ORANGE), (agreement, floor.agreement, _GREEN)):
        axis.axhline(value.mean, color=color, linewidth=1, linestyle=":")
    figure.supxlabel(phrase("caption", language), fontsize=9, color=_GREY)
    with atomic_writer(path) as file:
        file.write(png_of(figure))


def _curve(
    axis: Any,
    figures: Evaluation,
    of: _Of,
    color: str,
    label: str = "",
    *,
    unsteered: float = 0.0,
) -> None:
    """Draw means and intervals over strength; at strength 0 all is as it was."""
    none = (0.0, Interval(mean=unsteered, low=unsteered, high=unsteered))
    points = sorted(
        [none, *((row.strength, of(row)) for row in figures.rows)], key=lambda point: point[0]
    )
    strengths = [strength for strength, _ in points]
    axis.plot(strengths, [each.mean for _, each in points], "o-", color=color, label=label)
    axis.fill_between(
        strengths,
        [each.low for _, each in points],
        [each.high for _, each in points],
        color=color,
        alpha=0.18,
        linewidth=0,
    )
