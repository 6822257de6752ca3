"""`veche experts asleep`: which new parts of a grown model do nothing yet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.phrases import phrase
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stdout,
)

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.experts.sleep_states import Asleep


def asleep(
    folder: Annotated[Path, typer.Argument(help="A folder that veche build made.")],
    threshold: Annotated[
        float,
        typer.Option(min=0, help="A part is asleep up to this share of what old parts have."),
    ] = 0.01,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which new heads, units and experts are still silent, or twins of old ones."""
    from veche.experts.new_parts import find_asleep

    progress = None if as_json else TerminalProgress()
    told = find_asleep(folder, threshold=threshold, progress=progress)
    if as_json:
        print_json(told.as_dict())
    else:
        _show(told, chosen_language(lang))


def _show(told: "Asleep", language: "Language") -> None:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for name in ("new", "count", "awake", "silent", "twins"):
        title = phrase(f"col_{name}", language)
        table.add_column(title, justify="left" if name == "new" else "right")
    for name, counts in told.totals().items():
        keys = ("new", "awake", "silent", "twins")
        table.add_row(name, *(f"{counts[key]:,}" for key in keys))
    stdout.print(table)
    stdout.print(phrase("asleep_legend", language), soft_wrap=True)
    for layer in told.layers:
        awake = [phrase("awake_head", language, number=head) for head in layer.awake_heads]
        awake += [phrase("awake_expert", language, number=one) for one in layer.awake_experts]
        if awake:
            parts = ", ".join(awake)
            stdout.print(
                phrase("awake_in_layer", language, layer=layer.layer, parts=parts), soft_wrap=True
            )
