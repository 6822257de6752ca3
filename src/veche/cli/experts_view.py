"""What `veche experts` prints for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from veche.cli.terminal import stdout
from veche.core.language import Language

_MOST_ROWS, _LEAST_ROWS = 8, 3
"""Of a table that stands alone; of each, where an axis has several."""


def show_summary(summary: Mapping[str, Any], language: Language) -> None:
    """Print a recording's figures: voices, overlap, tests, new experts."""
    from veche.experts.report import overlap_rows, voice_rows

    head = ("", *(voice["name"] for voice in summary["voices"]))
    rows = (*voice_rows(summary, language), *overlap_rows(summary, language))
    _show_table(head, rows, left=1)
    _show_notes(summary, language)
    for axis in summary["axes"]:
        _show_axis(axis, language)
    if "asleep" in summary:
        _show_asleep(summary["asleep"], language)


def show_comparison(
    summary: Mapping[str, Any], titles: tuple[str, str], language: Language
) -> None:
    """Print how two recordings differ."""
    from veche.experts.report import changed_section, comparison_lines

    for line in comparison_lines(summary, titles, language):
        stdout.print(line, soft_wrap=True)
    if summary["experts"]:
        changed = changed_section(summary, language)
        _show_table(changed.head, changed.rows[:_MOST_ROWS])


def _show_notes(summary: Mapping[str, Any], language: Language) -> None:
    from veche.experts.phrases import PHRASES

    if summary["weights_say_nothing"]:
        stdout.print(PHRASES["equal_weights"][language], soft_wrap=True)


def _show_axis(axis: Mapping[str, Any], language: Language) -> None:
    from veche.experts.report import axis_sections

    sections = list(axis_sections(axis, language))
    most = _MOST_ROWS if len(sections) <= 2 else _LEAST_ROWS
    for section in sections:
        if section.title:
            stdout.print(f"\n{section.title}", style="bold")
        for line in section.texts:
            stdout.print(line, soft_wrap=True)
        if section.rows:
            _show_table(section.head, section.rows[:most])


def _show_asleep(found: Mapping[str, Any], language: Language) -> None:
    from veche.experts.report import asleep_text

    stdout.print(f"\n{asleep_text(found, language)}", soft_wrap=True)


def _show_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 0) -> None:
    """Print a table; columns after the first `left` are numbers, on the right."""
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for at, name in enumerate(head):
        table.add_column(name, justify="left" if at < left else "right")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)
