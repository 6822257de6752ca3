"""`veche experts heads`: what each attention head does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.engine_options import EngineOption, EngineOptions, open_engine
from veche.cli.phrases import phrase
from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from veche.core.language import Language
    from veche.experts.heads import HeadReport


def heads(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="What to ask it, while its heads are watched.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="A text that it reads instead of answering.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens to read of the text, or to answer to each prompt.")
    ] = 256,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    out: Annotated[Path | None, typer.Option(help="Draw heatmaps into this PNG.")] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure each head's entropy, distance and output, and how many heads do the same."""
    from veche.core.errors import InputError
    from veche.core.files import read_text, require_apart
    from veche.experts.head_plots import plot_heads
    from veche.experts.heads import heads_of_prompts, heads_of_text, report_heads

    language = chosen_language(lang)
    if (text is None) == (not prompts):
        raise InputError(
            "give either prompts to answer or a text to read",
            hint=f'veche experts heads {model} "Why is the sky blue?"',
        )
    if out is not None:
        require_apart(out, model, *([text] if text else []))
    words = None if text is None else read_text(text)
    asked = open_engine(engine, str(model), engine_option)
    told = (
        heads_of_prompts(asked, prompts or (), max_tokens=max_tokens)
        if words is None
        else heads_of_text(asked, words, max_tokens=max_tokens)
    )
    report = report_heads(told, model)
    if out is not None:
        plot_heads(out, report, language=language)
    if as_json:
        print_json({"picture": None if out is None else str(out), **report.as_dict()})
        return
    _show(report, language)
    if out is not None:
        stdout.print(str(out))


def _show(report: "HeadReport", language: "Language") -> None:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for name in ("layer", "entropy", "distance", "norm", "effective", "alike", "cosine"):
        table.add_column(phrase(f"col_{name}", language), justify="right", no_wrap=True)
    for layer, effective in enumerate(report.effective_heads):
        first = int(abs(report.nearest_cosine[layer]).argmax())
        table.add_row(
            str(layer),
            _range(report.entropy[layer]),
            _range(report.distance[layer]),
            _range(report.output_norm[layer]),
            f"{effective:.1f} / {len(report.entropy[layer])}",
            f"{first}, {report.nearest[layer, first]}",
            f"{report.nearest_cosine[layer, first]:.2f}",
        )
    stdout.print(table)
    stdout.print(phrase("heads_legend", language, tokens=report.num_tokens), soft_wrap=True)


def _range(values: "NDArray[np.float64]") -> str:
    return f"{values.min():.1f} – {values.max():.1f}"
