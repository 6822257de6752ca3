"""What `veche experts` prints for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from veche.cli.terminal import stdout
from veche.core.language import Language

_MOST_ROWS = 8


def show_summary(summary: Mapping[str, Any], language: Language) -> None:
    """Print a recording's figures: voices, overlap, tests, new experts."""
    from rich.table import Table

    voices = summary["voices"]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for voice in voices:
        table.add_column(voice["name"], justify="right")
    for key in [key for key in voices[0] if key != "name"]:
        table.add_row(key, *(_cell(voice[key]) for voice in voices))
    for voice, row in zip(voices, summary["overlap"], strict=True):
        table.add_row(f"overlap with {voice['name']}", *(_cell(value) for value in row))
    stdout.print(table)
    stdout.print(f"overlap by chance: {summary['null_overlap']:.3f}")
    _show_notes(summary, language)
    for axis in summary["axes"]:
        _show_axis(axis, language)
    if "asleep" in summary:
        _show_asleep(summary["asleep"], language)


def show_comparison(
    summary: Mapping[str, Any], titles: tuple[str, str], language: Language
) -> None:
    """Print how two recordings differ."""
    from veche.experts.report import comparison_lines

    for line in comparison_lines(summary, titles, language):
        stdout.print(line, soft_wrap=True)
    if summary["experts"]:
        stdout.print(_expert_table(summary["experts"]))


def _show_notes(summary: Mapping[str, Any], language: Language) -> None:
    from veche.experts.phrases import PHRASES

    if summary["weights_say_nothing"]:
        stdout.print(PHRASES["equal_weights"][language], soft_wrap=True)


def _show_axis(axis: Mapping[str, Any], language: Language) -> None:
    from veche.experts.phrases import axis_title
    from veche.experts.report import axis_lines

    title = axis_title(axis["axis"], axis["only"], language)
    stdout.print(f"\n{title}", style="bold")
    for line in axis_lines(axis, language):
        stdout.print(line, soft_wrap=True)
    rows = [
        {"value": group["value"], **expert}
        for group in axis["groups"]
        for expert in group["experts"]
    ]
    if rows:
        rows.sort(key=lambda row: -abs(row["difference"]))
        stdout.print(_expert_table(rows))


def _show_asleep(found: Mapping[str, Any], language: Language) -> None:
    from veche.experts.report import asleep_text

    stdout.print(f"\n{asleep_text(found, language)}", soft_wrap=True)


def _expert_table(experts: Sequence[Mapping[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for name in experts[0]:
        table.add_column(name, justify="right")
    for expert in experts[:_MOST_ROWS]:
        table.add_row(*(_cell(value) for value in expert.values()))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    return "–" if value is None else str(value)
