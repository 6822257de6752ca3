"""`veche export`: a checkpoint in the format of another engine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout

if TYPE_CHECKING:
    from veche.surgery.gguf.export import ExportReport

export = typer.Typer(
    name="export",
    help="Write a checkpoint in the format of another engine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@export.callback()
def _export() -> None:
    """Write a checkpoint in the format of another engine."""


@export.command("gguf")
def export_to_gguf(
    model: Annotated[Path, typer.Argument(help="A checkpoint folder; only read.")],
    out: Annotated[Path, typer.Option(help="The GGUF file to write; it must not exist.")],
    type_name: Annotated[
        str,
        typer.Option(
            "--type",
            help="Of the weights: f32, f16, bf16, q8_0; q4_k_m and others need llama-quantize.",
            metavar="TYPE",
        ),
    ] = "bf16",
    pre: Annotated[
        str | None,
        typer.Option(
            help="llama.cpp's name of the pre-tokenizer.",
            show_default="found by what the tokenizer does",
            metavar="NAME",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as one GGUF file for llama.cpp, and read it back to check it."""
    from veche.core.extras import require_extra

    require_extra("gguf")
    from veche.surgery.gguf.export import export_gguf

    report = export_gguf(model, out, type_name=type_name, pre=pre, progress=TerminalProgress())
    if as_json:
        print_json(report.as_dict())
    else:
        show_export(report)


def show_export(report: "ExportReport") -> None:
    """Print the report for people."""
    from veche.core.units import format_bytes, format_count

    check = report.check
    types = ", ".join(f"{count} {name}" for name, count in check.types.items())
    stdout.print(
        f"{report.target} ({format_bytes(report.num_bytes)}, {report.seconds:.0f} s, at most "
        f"{format_bytes(report.peak_memory_bytes)} of memory)",
        markup=False,
        soft_wrap=True,
    )
    stdout.print(
        f"{report.architecture}, {format_count(check.num_parameters)} parameters, tokenizer "
        f"{report.pre_tokenizer}; {check.num_tensors} tensors: {types}",
        markup=False,
        soft_wrap=True,
    )
    stdout.print(
        f"checked: names and shapes are those that llama.cpp expects; {check.num_rows_compared} "
        f"rows differ from the source by {check.relative_error:.1e} of their size",
        markup=False,
        soft_wrap=True,
    )
