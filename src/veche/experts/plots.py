"""Draw which experts spoke: a heatmap a voice, and how much voices share."""

import math
import textwrap
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError, MissingExtraError
from veche.core.files import atomic_writer
from veche.core.language import Language, Phrase
from veche.engines.protocol import Routing
from veche.experts.metrics import expert_counts, load
from veche.experts.summary import overlap_matrix

_DPI = 130
_WIDTH_INCHES = 12.0
_COLUMNS = 3
_TITLE: Phrase = {
    "en": "Which experts spoke, voice by voice",
    "ru": "Какие эксперты говорили, голос за голосом",
}
_VOICE: Phrase = {"en": "{voice} · {tokens} tokens", "ru": "{voice} · токенов: {tokens}"}
_EXPERT: Phrase = {"en": "expert", "ru": "эксперт"}
_LAYER: Phrase = {"en": "layer", "ru": "слой"}
_SCALE: Phrase = {
    "en": "load, × uniform (1 = as often as by chance)",
    "ru": "нагрузка, × равномерной (1 = как случайно)",
}
_OVERLAP: Phrase = {"en": "Experts that two tokens share", "ru": "Общие эксперты двух токенов"}
_CAPTION: Phrase = {
    "en": (
        "Null baseline: with experts chosen at random, any two tokens share k/E = {k}/{experts} = "
        "{null:.0%} of theirs, and every cell of a heatmap is near 1. Compare a voice's row with "
        "its own diagonal: uneven load alone lifts all of it. Few tokens make noisy heatmaps."
    ),
    "ru": (
        "Нулевая гипотеза: при случайном выборе у любых двух токенов общие k/E = {k}/{experts} = "
        "{null:.0%} экспертов, а каждая клетка теплокарты около 1. Сравнивайте строку голоса с его "
        "диагональю: неравная нагрузка поднимает всё сразу. Мало токенов — много шума."
    ),
}


def plot_routing(
    path: Path,
    routing: Mapping[str, Routing],
    *,
    titles: Mapping[str, str] | None = None,
    language: Language = "en",
) -> None:
    """Write a PNG, about 1,560 pixels wide.

    Args:
        path: of the PNG.
        routing: of each voice, from one model.
        titles: what to call a voice, where not by its name.
        language: of the words in the picture.

    Raises:
        InputError: no voice has a routed token, or they come from different models.
        MissingExtraError: matplotlib is not installed.
    """
    spoken = {voice: routed for voice, routed in routing.items() if len(routed.expert_ids)}
    shapes = {(routed.expert_ids.shape[1:], routed.num_experts) for routed in spoken.values()}
    if len(shapes) != 1:
        raise InputError(
            "there is no routing to draw"
            if not shapes
            else "the voices' routings come from different models"
        )
    names = {voice: (titles or {}).get(voice, voice) for voice in spoken}
    picture = _draw(spoken, names, language)
    with atomic_writer(path) as file:
        file.write(picture)


def _draw(routing: Mapping[str, Routing], names: Mapping[str, str], language: Language) -> bytes:
    make_figure = figure_class()
    num_panels = len(routing) + 1
    rows = math.ceil(num_panels / _COLUMNS)
    figure = make_figure(figsize=(_WIDTH_INCHES, 0.9 + 3.9 * rows), dpi=_DPI, layout="constrained")
    figure.suptitle(_TITLE[language], fontsize=16, fontweight="bold")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    image = _heatmaps(axes, routing, names, language)
    figure.colorbar(
        image,
        ax=list(axes[: len(routing)]),
        location="bottom",
        shrink=0.5,
        aspect=50,
        pad=0.03,
        label=_SCALE[language],
    )
    any_routing = next(iter(routing.values()))
    top_k = any_routing.expert_ids.shape[2]
    null = top_k / any_routing.num_experts
    _matrix(axes[len(routing)], overlap_matrix(routing), list(names.values()), null, language)
    for axis in axes[num_panels:]:
        axis.axis("off")
    caption = _CAPTION[language].format(k=top_k, experts=any_routing.num_experts, null=null)
    figure.supxlabel(_wrapped(caption), fontsize=10, color="#444444", ha="center")
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _heatmaps(
    axes: Any, routing: Mapping[str, Routing], names: Mapping[str, str], language: Language
) -> Any:
    relative = {
        voice: load(expert_counts(routed.expert_ids, routed.num_experts)) * routed.num_experts
        for voice, routed in routing.items()
    }
    # One scale for all voices; the brightest 1 % of cells may be cut.
    top = max(2.0, float(np.quantile(np.concatenate(list(relative.values())), 0.99)))
    image = None
    for axis, (voice, load_LE) in zip(axes, relative.items(), strict=False):
        image = axis.imshow(
            load_LE, aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest"
        )
        tokens = len(routing[voice].expert_ids)
        axis.set_title(_VOICE[language].format(voice=_short(names[voice]), tokens=tokens))
        axis.locator_params(integer=True)
        axis.set_xlabel(_EXPERT[language])
        axis.set_ylabel(_LAYER[language])
    return image


def _matrix(
    axis: Any, matrix: NDArray[np.float64], names: list[str], null: float, language: Language
) -> None:
    known = matrix[~np.isnan(matrix)]
    low = min([null, *known])
    # At least a tenth: a difference of a few per cent must not look like day and night.
    high = max([low + 0.1, *known])
    axis.imshow(matrix, cmap="cividis", vmin=low, vmax=high)
    labels = [_short(name) for name in names]
    axis.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axis.set_yticks(range(len(labels)), labels)
    axis.set_title(_OVERLAP[language])
    middle = (low + high) / 2
    for row in range(len(labels)):
        for column in range(len(labels)):
            value = matrix[row, column]
            axis.text(
                column,
                row,
                "–" if np.isnan(value) else f"{value:.0%}",
                ha="center",
                va="center",
                color="white" if np.isnan(value) or value < middle else "black",
            )


def _wrapped(text: str, width: int = 120) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _short(name: str, limit: int = 18) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def figure_class() -> Any:
    """Return what makes a matplotlib figure that no window shows.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots") from error

    def make(**options: Any) -> Any:
        figure = Figure(**options)
        FigureCanvasAgg(figure)
        return figure

    return make
