"""What `veche role eval` and `veche role compare` print for people."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from veche.cli.interval_cell import interval_cell
from veche.cli.terminal import stderr, stdout
from veche.core.language import Language
from veche.experts.bootstrap import Interval
from veche.roles.evaluation.compare import Comparison
from veche.roles.evaluation.evaluate import Evaluation
from veche.roles.evaluation.phrases import method_name, phrase
from veche.roles.evaluation.scored import Note, Part

_SHOWN = 4
"""Figures of the table beside the headline; all are in the JSON, and the role's below it."""


def show_evaluation(evaluation: Evaluation, pictures: Sequence[Path], language: Language) -> None:
    """Print a table for each thing that was measured."""
    for part in evaluation.parts:
        title = phrase(
            f"title_{part.measures}", language, rows=part.num_rows, groups=part.num_groups
        )
        stdout.print(title, soft_wrap=True)
        stdout.print(_methods(part, language))
        _show_others(part, language)
        headline = phrase(f"figure_{part.headline}", language)
        stdout.print(phrase("legend", language, headline=headline), soft_wrap=True)
        _show_notes(part.notes, language)
    _show_notes(evaluation.notes, language)
    for path in pictures:
        stdout.print(phrase("picture", language, path=path), soft_wrap=True)


def show_comparison(comparison: Comparison, language: Language) -> None:
    """Print by how much the second role is better, figure by figure."""
    for part in comparison.parts:
        second, first = part.methods
        said = phrase(
            "compared",
            language,
            first=first.name,
            second=second.name,
            measures=phrase(f"measures_{part.measures}", language),
            rows=part.num_rows,
            groups=part.num_groups,
        )
        stdout.print(said, soft_wrap=True)
        table = _table("", first.name, second.name, phrase("col_gain", language), "")
        for name, gain in first.gains.items():
            table.add_row(
                phrase(f"figure_{name}", language),
                _cell(first.figures[name], language),
                _cell(second.figures[name], language),
                _cell(gain, language, is_signed=True),
                phrase(_verdict(gain), language),
            )
        stdout.print(table)
        _show_notes(part.notes, language)
    _show_notes(comparison.notes, language)


def _verdict(gain: Interval) -> str:
    return "better" if gain.is_above_zero else "worse" if gain.is_below_zero else "no_difference"


def _methods(part: Part, language: Language) -> Table:
    names = _columns(part)
    table = _table(
        phrase("col_method", language),
        *(phrase(f"figure_{name}", language) for name in names),
        phrase("col_gain", language),
    )
    for method in part.methods:
        gain = method.gains.get(part.headline)
        table.add_row(
            method_name(method.name, language),
            *(
                _cell(method.figures[name], language) if name in method.figures else "–"
                for name in names
            ),
            "–" if gain is None else _cell(gain, language, is_signed=True),
        )
    return table


def _columns(part: Part) -> list[str]:
    """Return the headline, and what most methods have besides."""
    shared = [
        name
        for name in part.role.figures
        if name != part.headline and sum(name in method.figures for method in part.methods) > 1
    ]
    return [part.headline, *shared[: _SHOWN - 1]]


def _show_others(part: Part, language: Language) -> None:
    """Print what of the role's figures has no column."""
    others = [name for name in part.role.figures if name not in _columns(part)]
    if others:
        told = (
            f"{phrase(f'figure_{name}', language)} "
            f"{_cell(part.role.figures[name], language, is_in_line=True)}"
            for name in others
        )
        stdout.print(f"{method_name('role', language)}: {'; '.join(told)}", soft_wrap=True)


def _show_notes(notes: Sequence[Note], language: Language) -> None:
    for note in notes:
        stderr.print(phrase(f"note_{note.key}", language, **note.values), soft_wrap=True)


def _cell(
    interval: Interval, language: Language, *, is_signed: bool = False, is_in_line: bool = False
) -> str:
    if math.isnan(interval.mean):
        return phrase("undefined", language)
    form = "+.3f" if is_signed else ".3f"
    return interval_cell(interval, form, between=" " if is_in_line else "\n")


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
