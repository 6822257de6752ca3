"""Draw how far confidence can be trusted, and what it separates: reliability diagram and ROC.

Shapes: N rows, B bins.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.files import atomic_writer
from veche.core.language import Language
from veche.experts.figure import DPI, new_figure, png_of
from veche.roles.evaluation.metrics import ECE_BINS, auroc, roc_curve
from veche.roles.evaluation.phrases import method_name, phrase
from veche.roles.evaluation.scored import Curve, Method, Part
from veche.roles.evaluation.wilson import wilson_interval

_COLORS = ("#1b6ca8", "#c1571a", "#3a7d44", "#8a4f9e", "#b8860b", "#666666", "#222222")
_LINES = [(color, line) for line in ("-", "--", "-.") for color in _COLORS]
"""Of the methods, in order: behind the seventh the colours come again, dashed."""
_GREY = "#666666"
_SIZE = (11.0, 5.4)


def is_drawable(part: Part) -> bool:
    """Whether there is a curve of both classes."""
    return any(_has_both(method) for method in part.methods)


def plot_part(path: Path, part: Part, *, name: str, language: Language = "en") -> None:
    """Write a PNG: the role's reliability diagram, and the ROC of all methods.

    Args:
        path: of the PNG.
        part: what was measured.
        name: of the role.
        language: of the words in the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(figsize=_SIZE, dpi=DPI)
    measures = phrase(f"measures_{part.measures}", language)
    figure.suptitle(f"{name}: {measures}", fontsize=15, fontweight="bold")
    reliability, roc = figure.subplots(1, 2)
    curve = part.role.curve
    if curve is not None and curve.is_probability:
        _draw_reliability(reliability, curve)
    for method, (color, line) in zip(_drawn(part), cycle(_LINES), strict=False):
        _draw_roc(roc, method, language, color=color, linestyle=line)
    for axis, title, x, y in (
        (reliability, "plot_reliability", "axis_confidence", "axis_share"),
        (roc, "plot_roc", "axis_false", "axis_true"),
    ):
        axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.7, linestyle=":")
        axis.set_title(phrase(title, language))
        axis.set_xlabel(phrase(x, language))
        axis.set_ylabel(phrase(y, language))
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_aspect("equal")
        axis.grid(visible=True, linewidth=0.3)
    roc.legend(frameon=False, fontsize=8, loc="lower right")
    figure.supxlabel(phrase("caption", language), fontsize=9, color=_GREY)
    with atomic_writer(path) as file:
        file.write(png_of(figure))


def bins_of(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return mean confidence, share that is so, and count of each bin that holds something, [B].

    Bins are those of the ECE: of equal width, closed above.
    """
    bin_N = np.clip(np.ceil(curve.score * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    count_B = np.bincount(bin_N, minlength=ECE_BINS)
    is_used_B = count_B > 0
    confidence_B = np.bincount(bin_N, weights=curve.score, minlength=ECE_BINS)[is_used_B]
    share_B = np.bincount(bin_N, weights=curve.is_positive, minlength=ECE_BINS)[is_used_B]
    count_B = count_B[is_used_B]
    return confidence_B / count_B, share_B / count_B, count_B


def _draw_reliability(axis: Any, curve: Curve) -> None:
    confidence_B, share_B, count_B = bins_of(curve)
    intervals = [
        wilson_interval(round(share * count), count)
        for share, count in zip(share_B.tolist(), count_B.tolist(), strict=True)
    ]
    low_B, high_B = [each.low for each in intervals], [each.high for each in intervals]
    axis.vlines(confidence_B, low_B, high_B, color=_COLORS[0], linewidth=1.2, alpha=0.6)
    axis.plot(confidence_B, share_B, color=_COLORS[0], linewidth=1)
    size_B = 20 + 180 * count_B / count_B.max()
    axis.scatter(confidence_B, share_B, s=size_B, color=_COLORS[0], clip_on=False, zorder=3)


def _draw_roc(axis: Any, method: Method, language: Language, **line: str) -> None:
    assert method.curve is not None  # noqa: S101 - only such are drawn
    score_N, is_positive_N = method.curve.score, method.curve.is_positive
    false_T, true_T = roc_curve(score_N, is_positive_N)
    label = f"{method_name(method.name, language)}  {auroc(score_N, is_positive_N):.3f}"
    axis.plot(false_T, true_T, linewidth=1.4, label=label, **line)


def _drawn(part: Part) -> list[Method]:
    return [method for method in part.methods if _has_both(method)]


def _has_both(method: Method) -> bool:
    curve = method.curve
    return curve is not None and 0 < int(curve.is_positive.sum()) < len(curve.is_positive)
