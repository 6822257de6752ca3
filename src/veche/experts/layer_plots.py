"""Draw how evenly layers route, and which experts some kind of tokens uses more."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from veche.core.language import Language, Phrase
from veche.experts import metrics
from veche.experts.compare import Comparison
from veche.experts.figure import DPI, WIDTH_INCHES, new_figure, png_of
from veche.experts.phrases import axis_title, name_of
from veche.experts.recording import Recording
from veche.experts.significance import SIGNIFICANCE, Difference
from veche.experts.specialisation import Axis, Group
from veche.experts.summary import layer_number

_COLUMNS = 3
_MOST_VOICES = 6
_MOST_PANELS = 12
_LEAST_SCALE = 0.01
"""Where nothing differs, a colour scale of a billionth would only frighten."""
_PHRASES: Mapping[str, Phrase] = {
    "load_entropy": {
        "en": "load entropy (1 = uniform)",
        "ru": "энтропия нагрузки (1 = равномерна)",
    },
    "load_cv": {"en": "load CV (0 = uniform)", "ru": "CV нагрузки (0 = равномерна)"},
    "max_violation": {"en": "MaxVio (0 = uniform)", "ru": "MaxVio (0 = равномерна)"},
    "dead_experts": {"en": "dead experts", "ru": "мёртвые эксперты"},
    "layer": {"en": "layer", "ru": "слой"},
    "expert": {"en": "expert", "ru": "эксперт"},
    "change": {
        "en": "activation rate, difference; a dot is significant (p ≤ 0.05, adjusted)",
        "ru": "частота выбора, разность; точка — значимо (p ≤ 0,05 с поправкой)",
    },
    "against": {"en": "{value} against {against}", "ru": "{value} против {against}"},
    "js": {"en": "Jensen–Shannon, 0–1", "ru": "Йенсен–Шеннон, 0–1"},
    "js_null": {"en": "if the two were one (mean)", "ru": "если бы они были одним (среднее)"},
    "saturation": {
        "en": "experts shared by the same token",
        "ru": "общие эксперты одного токена",
    },
    "by_chance": {"en": "by chance (k/E)", "ru": "случайно (k/E)"},
    "second": {"en": "second", "ru": "второе"},
    "first": {"en": "first", "ru": "первого"},
}


def layers_png(recording: Recording, names: Mapping[str, str], language: Language = "en") -> bytes:
    """Return a PNG of load entropy, CV, MaxVio and dead experts, layer by layer, voice by voice."""
    say = {key: words[language] for key, words in _PHRASES.items()}
    parts = dict([*recording.by_voice().items()][:_MOST_VOICES])
    figure = new_figure(figsize=(WIDTH_INCHES, 6.4), dpi=DPI)
    axes = figure.subplots(2, 2).ravel()
    layers = [layer_number(recording, row) for row in range(recording.num_layers)]
    for index, (voice, part) in enumerate(parts.items()):
        counts = metrics.expert_counts(part.expert_ids, part.num_experts)
        load = metrics.load(counts)
        shape = (part.num_tokens, part.top_k, part.num_experts)
        lines = (
            ("load_entropy", metrics.load_entropy(load), None),
            ("load_cv", metrics.load_cv(load), metrics.expected_cv(*shape)),
            ("max_violation", metrics.max_violation(load), None),
            ("dead_experts", metrics.dead_experts(counts), metrics.expected_dead_experts(*shape)),
        )
        name = names.get(voice, voice)
        for axis, (key, values, null) in zip(axes, lines, strict=True):
            axis.plot(layers, values, marker=".", color=f"C{index}", label=name)
            axis.set_title(say[key])
            if null is not None:
                axis.axhline(null, linestyle=":", color=f"C{index}")
    for axis in axes:
        axis.set_xlabel(say["layer"])
        axis.locator_params(axis="x", integer=True)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    return png_of(figure)


def specialisation_png(
    recording: Recording, axes: tuple[Axis, ...], language: Language = "en"
) -> bytes | None:
    """Return a PNG of every group with a significant expert; None where there is none."""
    say = {key: words[language] for key, words in _PHRASES.items()}
    panels = [
        (_title(axis, group, say, language), group.found, group.adjusted)
        for axis in axes
        for group in axis.groups
        if group.num_significant
    ][:_MOST_PANELS]
    return _differences(recording, panels, say) if panels else None


def comparison_png(found: Comparison, language: Language = "en") -> bytes:
    """Return a PNG of a comparison: JS by layer with its null, saturation, changed experts."""
    say = {key: words[language] for key, words in _PHRASES.items()}
    layers = [layer_number(found.first, row) for row in range(found.first.num_layers)]
    figure = new_figure(figsize=(WIDTH_INCHES, 4.2), dpi=DPI)
    left, middle, right = figure.subplots(1, 3)
    left.plot(layers, found.js, marker=".", label=say["js"])
    left.plot(layers, found.null_js, linestyle=":", color="C0", label=say["js_null"])
    left.set_title(say["js"])
    left.set_ylim(bottom=0)
    left.legend(fontsize=8)
    middle.set_title(say["saturation"])
    middle.set_ylim(0, 1.05)
    null = found.first.top_k / found.first.num_experts
    middle.axhline(null, linestyle=":", color="C0", label=say["by_chance"])
    if found.saturation is None:
        middle.text(0.5, 0.5, "–", transform=middle.transAxes, ha="center")
    else:
        middle.plot(layers, found.saturation, marker=".")
    middle.legend(fontsize=8, loc="lower right")
    for axis in (left, middle):
        axis.set_xlabel(say["layer"])
        axis.grid(alpha=0.3)
    if found.experts is None or found.adjusted is None:
        right.axis("off")
    else:
        title = say["against"].format(value=say["second"], against=say["first"])
        image = _panel(right, found.first, (title, found.experts, found.adjusted), None, say)
        bar = figure.colorbar(image, ax=right, location="bottom")
        bar.set_label(say["change"], fontsize=7)
        bar.ax.locator_params(axis="x", nbins=4)
    return png_of(figure)


def _title(axis: Axis, group: Group, say: Mapping[str, str], language: Language) -> str:
    value, against = (name_of(word, language) for word in (group.value, group.against))
    sides = say["against"].format(value=value, against=against)
    return f"{axis_title(axis.name, axis.only, language)}: {sides}"


def _differences(recording: Recording, panels: list[Any], say: Mapping[str, str]) -> bytes:
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = new_figure(figsize=(WIDTH_INCHES, 0.8 + 3.9 * rows), dpi=DPI)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    limit = max(float(np.abs(found.rate - found.rest).max()) for _, found, _ in panels)
    for axis, panel in zip(axes, panels, strict=False):
        image = _panel(axis, recording, panel, limit, say)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    figure.colorbar(
        image, ax=list(axes[: len(panels)]), location="bottom", shrink=0.5, aspect=50,
        label=say["change"],
    )  # fmt: skip
    return png_of(figure)


def _panel(
    axis: Any,
    recording: Recording,
    panel: tuple[str, Difference, Any],
    limit: float | None,
    say: Mapping[str, str],
) -> Any:
    title, found, adjusted_LE = panel
    change_LE = (found.rate - found.rest).reshape(adjusted_LE.shape)
    limit = limit or max(float(np.abs(change_LE).max()), _LEAST_SCALE)
    image = axis.imshow(
        change_LE, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    rows, experts = np.nonzero(adjusted_LE <= SIGNIFICANCE)
    axis.scatter(experts, rows, s=4, color="black")
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(say["expert"])
    axis.set_ylabel(say["layer"])
    axis.locator_params(integer=True)
    ticks = [int(tick) for tick in axis.get_yticks() if 0 <= tick < recording.num_layers]
    axis.set_yticks(ticks, [str(layer_number(recording, tick)) for tick in ticks])
    return image
