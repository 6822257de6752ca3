"""Draw a disagreement map: a row a layer, a column a token of the answer."""

from pathlib import Path
from typing import Any

import numpy as np

from veche.core.files import atomic_writer
from veche.core.language import Language, Phrase
from veche.experts.disagreement_map import Array, DisagreementMap
from veche.experts.figure import new_figure, png_of
from veche.experts.shown_text import shown_text

_DPI = 110
_INCHES_A_TOKEN = 0.2
_MOST_INCHES = 200.0
"""Agg draws at most 65,535 pixels; 110 of them an inch."""
_TITLE: Phrase = {
    "en": "Where {voices} part while they read the same answer",
    "ru": "Где расходятся {voices}, читая один и тот же ответ",
}
_JS: Phrase = {
    "en": "next token,\nJS, bits",
    "ru": "следующий\nтокен, JS, бит",
}
_SURPRISE: Phrase = {
    "en": "surprise,\nnats",
    "ru": "неожиданность,\nнат",
}
_HIDDEN: Phrase = {
    "en": "layer\n(states, 1 − cos)",
    "ru": "слой\n(состояния, 1 − cos)",
}
_ROUTING: Phrase = {
    "en": "routing layer\n(experts shared)",
    "ru": "слой с выбором\n(общие эксперты)",
}
_CAPTION: Phrase = {
    "en": (
        "Each column is a token of the answer. States and distributions stand just before it, its "
        "routing is that of reading it. Surprise is −ln of the probability that a voice gave it."
    ),
    "ru": (
        "Столбец — токен ответа. Состояния и распределения взяты прямо перед ним, выбор экспертов "
        "— при его чтении. Неожиданность — это −ln вероятности, которую дал ему голос."
    ),
}
_BY_CHANCE: Phrase = {"en": "by chance {null:.0%}", "ru": "случайно {null:.0%}"}


def plot_disagreement(path: Path, told: DisagreementMap, *, language: Language = "en") -> None:
    """Write a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    num_tokens = len(told.tokens)
    width = min(_MOST_INCHES, max(10.0, 3.2 + _INCHES_A_TOKEN * num_tokens))
    panels = _panels(told)
    heights = [height for _, height in panels]
    figure = new_figure(figsize=(width, 1.7 + sum(heights)), dpi=_DPI)
    figure.suptitle(
        _TITLE[language].format(voices=shown_text(", ".join(told.voices), 80)),
        fontsize=13, fontweight="bold", parse_math=False,
    )  # fmt: skip
    axes = figure.subplots(
        len(panels), 3, squeeze=False,
        height_ratios=heights, width_ratios=[width - 2.2, 0.8, 0.15],
    )  # fmt: skip
    labels = [shown_text(token.replace(" ", "·"), 12) for token in told.tokens]
    for row, (draw, _) in enumerate(panels):
        main = axes[row][0]
        draw(axes[row], told, language)
        is_last = row == len(panels) - 1
        main.set_xticks(
            range(num_tokens), labels if is_last else [], rotation=90, fontsize=8,
            parse_math=False,
        )  # fmt: skip
        main.set_xlim(-0.5, num_tokens - 0.5)
    figure.supxlabel(_CAPTION[language], fontsize=8, color="#444444", wrap=True)
    with atomic_writer(path) as file:
        file.write(png_of(figure))


def _panels(told: DisagreementMap) -> list[tuple[Any, float]]:
    """Return what is drawn from top to bottom, each with its height in inches."""
    panels: list[tuple[Any, float]] = [
        (_draw_js, 1.1),
        (_draw_surprise, 0.5 + 0.25 * len(told.voices)),
    ]
    if told.hidden_layers:
        panels.append((_draw_hidden, _height(len(told.hidden_layers))))
    if told.routing_overlap is not None:
        panels.append((_draw_routing, _height(told.routing_overlap.shape[1])))
    return panels


def _height(num_rows: int) -> float:
    return min(6.0, 1.2 + 0.09 * num_rows)


def _draw_js(axes: Any, told: DisagreementMap, language: Language) -> None:
    axis, *rest = axes
    for unused in rest:
        unused.axis("off")
    axis.bar(range(len(told.js_bits)), told.js_bits, width=0.9, color="#7a1f2b")
    axis.set_ylim(0, max(0.05, 1.05 * float(told.js_bits.max())))
    axis.set_ylabel(_JS[language])


def _draw_surprise(axes: Any, told: DisagreementMap, language: Language) -> None:
    axis, unused, scale = axes
    unused.axis("off")
    image = _heatmap(axis, told.surprise_nats, "magma", 0.0, max(1.0, _high(told.surprise_nats)))
    names = [shown_text(voice, 18) for voice in told.voices]
    axis.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    _scale(image, scale, _SURPRISE[language].replace("\n", " "))


def _draw_hidden(axes: Any, told: DisagreementMap, language: Language) -> None:
    axis, alignment, scale = axes
    values = told.hidden_distance.T
    image = _heatmap(axis, values, "cividis", 0.0, max(0.02, _high(values)))
    axis.set_ylabel(_HIDDEN[language])
    _layer_ticks(axis, [str(layer) for layer in told.hidden_layers])
    _scale(image, scale, "1 − cos")
    known = np.nan_to_num(told.cka)
    alignment.barh(range(len(known)), known, height=0.9, color="#30506e")
    alignment.set_ylim(axis.get_ylim())
    alignment.set_xlim(min(0.0, float(known.min())), 1.0)
    alignment.set_yticks([])
    alignment.tick_params(labelsize=7)
    alignment.set_title("CKA", fontsize=8)


def _draw_routing(axes: Any, told: DisagreementMap, language: Language) -> None:
    axis, unused, scale = axes
    unused.axis("off")
    if told.routing_overlap is None or told.routing_by_chance is None:
        raise ValueError("there is no routing to draw")
    null = told.routing_by_chance
    image = _heatmap(axis, told.routing_overlap.T, "cividis_r", min(null, 0.99), 1.0)
    axis.set_ylabel(_ROUTING[language])
    _layer_ticks(axis, [str(row) for row in range(told.routing_overlap.shape[1])])
    _scale(image, scale, _BY_CHANCE[language].format(null=null))


def _heatmap(axis: Any, values: Array, colours: str, low: float, high: float) -> Any:
    return axis.imshow(
        values, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest"
    )


def _high(values: Array) -> float:
    """Return the top of a colour scale: the brightest 1 % of cells may be cut."""
    return float(np.quantile(values, 0.99))


def _layer_ticks(axis: Any, labels: list[str]) -> None:
    step = max(1, len(labels) // 10)
    axis.set_yticks(range(0, len(labels), step), labels[::step], fontsize=8)


def _scale(image: Any, axis: Any, label: str) -> None:
    bar = axis.figure.colorbar(image, cax=axis)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
