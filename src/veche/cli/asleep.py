"""`veche experts asleep`: which new parts of a grown model do nothing yet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout

if TYPE_CHECKING:
    from veche.experts.sleep_states import Asleep


def asleep(
    folder: Annotated[Path, typer.Argument(help="A folder that veche build made.")],
    threshold: Annotated[
        float,
        typer.Option(min=0, help="A part is asleep up to this share of what old parts have."),
    ] = 0.01,
    as_json: JsonOption = False,
) -> None:
    """Tell which new heads, units and experts are still silent, or twins of old ones."""
    from veche.experts.new_parts import find_asleep

    progress = None if as_json else TerminalProgress()
    told = find_asleep(folder, threshold=threshold, progress=progress)
    if as_json:
        print_json(told.as_dict())
    else:
        _show(told)


def _show(told: "Asleep") -> None:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for column in ("new", "how many", "awake", "silent", "twins"):
        table.add_column(column, justify="left" if column == "new" else "right")
    for name, counts in told.totals().items():
        keys = ("new", "awake", "silent", "twins")
        table.add_row(name, *(f"{counts[key]:,}" for key in keys))
    stdout.print(table)
    for layer in told.layers:
        awake = [f"head {head}" for head in layer.awake_heads]
        awake += [f"expert {expert}" for expert in layer.awake_experts]
        if awake:
            stdout.print(f"layer {layer.layer}: awake: {', '.join(awake)}", soft_wrap=True)
