"""Draw what a model's attention heads do: a heatmap a measure, a row a layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.files import atomic_writer
from veche.core.language import Language, Phrase
from veche.experts.figure import new_figure, png_of
from veche.experts.heads import HeadReport

_DPI = 120
_TITLE: Phrase = {
    "en": "What {heads} heads do in each of {layers} layers · {tokens} tokens",
    "ru": "Что делают головы внимания: по {heads} в {layers} слоях · токенов: {tokens}",
}
_ENTROPY: Phrase = {
    "en": "Entropy of attention, nats",
    "ru": "Энтропия внимания, нат",
}
_DISTANCE: Phrase = {
    "en": "Distance attended to, tokens",
    "ru": "Расстояние внимания, токенов",
}
_NORM: Phrase = {
    "en": "Adds at most, × median head (log₁₀)",
    "ru": "Добавляет не больше, × медианы (log₁₀)",
}
_REDUNDANCY: Phrase = {
    "en": "|cos| with the nearest other head",
    "ru": "|cos| с ближайшей другой головой",
}
_EFFECTIVE: Phrase = {"en": "Effective heads", "ru": "Эффективных голов"}
_HEAD: Phrase = {"en": "head", "ru": "голова"}
_LAYER: Phrase = {"en": "layer", "ru": "слой"}
_CAPTION: Phrase = {
    "en": (
        "Means over tokens. Red frames: heads that growth added. Effective heads: how many would "
        "do the same if they had nothing in common (Vendi score of what they add)."
    ),
    "ru": (
        "Средние по токенам. Красные рамки: головы, добавленные ростом. Эффективных голов — "
        "сколько дали бы то же, не имея ничего общего (Vendi score того, что они добавляют)."
    ),
}
_FLOOR = 1e-3
"""Contributions below it are drawn alike: a silent head has no logarithm."""


def plot_heads(path: Path, report: HeadReport, *, language: Language = "en") -> None:
    """Write a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    num_layers, num_heads = report.entropy.shape
    panel = 1.4 + min(9.0, 0.13 * num_layers)
    figure = new_figure(figsize=(15.0, 2 * panel + 1.0), dpi=_DPI)
    title = _TITLE[language].format(heads=num_heads, layers=num_layers, tokens=report.num_tokens)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    axes = figure.subplots(2, 3, width_ratios=[4, 4, 2])
    louder = np.log10(np.maximum(report.relative_contribution, _FLOOR))
    _heatmap(axes[0, 0], report, report.entropy, _ENTROPY[language], "cividis", (0, None))
    _heatmap(axes[0, 1], report, report.distance, _DISTANCE[language], "cividis", (0, None))
    _heatmap(axes[1, 0], report, louder, _NORM[language], "PuOr", (-1.5, 1.5))
    _heatmap(
        axes[1, 1], report, np.abs(report.nearest_cosine), _REDUNDANCY[language], "magma", (0, 1)
    )
    for axis in (*axes[0, :2], *axes[1, :2]):
        axis.set_xlabel(_HEAD[language])
        axis.set_ylabel(_LAYER[language])
        axis.locator_params(integer=True)
    _effective(axes[0, 2], report, language)
    axes[1, 2].axis("off")
    figure.supxlabel(_CAPTION[language], fontsize=9, color="#444444")
    with atomic_writer(path) as file:
        file.write(png_of(figure))


def _heatmap(
    axis: Any,
    report: HeadReport,
    values: NDArray[np.float64],
    title: str,
    colours: str,
    limits: Sequence[float | None],
) -> None:
    low, high = limits
    image = axis.imshow(
        values, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest"
    )
    axis.set_title(title, fontsize=11)
    axis.figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01)
    for layer, heads in enumerate(report.new_heads):
        for head in heads:
            axis.add_patch(_frame(head, layer))


def _frame(head: int, layer: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="#d62728", linewidth=0.8
    )


def _effective(axis: Any, report: HeadReport, language: Language) -> None:
    num_layers, num_heads = report.entropy.shape
    axis.barh(range(num_layers), report.effective_heads, height=0.9, color="#30506e")
    axis.axvline(num_heads, color="#444444", linestyle=":")
    axis.set_ylim(num_layers - 0.5, -0.5)
    axis.set_xlim(0, num_heads * 1.05)
    axis.locator_params(integer=True)
    axis.set_title(_EFFECTIVE[language], fontsize=11)
    axis.set_ylabel(_LAYER[language])
