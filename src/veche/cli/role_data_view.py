"""Made problems and own answers, on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from veche.cli.terminal import stdout
from veche.roles.data.problems.phrases import phrase

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.roles.data.problems.difficulty import Fit


def show_fits(fits: "Sequence[Fit]", language: "Language") -> None:
    """Print a row for each difficulty that was tried, and what was found of each kind."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for key in ("kind", "language", "difficulty", "right", "interval"):
        table.add_column(phrase(f"col_{key}", language))
    for fit in fits:
        for level in fit.levels:
            share = level.share
            mark = " *" if level == fit.chosen else ""
            table.add_row(
                fit.kind,
                fit.language,
                f"{level.difficulty}{mark}",
                f"{level.right} / {level.total} = {share.mean:.0%}",
                f"{share.low:.0%} – {share.high:.0%}",
            )
    stdout.print(table)
    for fit in fits:
        told = phrase(fit.verdict, language)
        if fit.is_above_chance is False:
            told += "; " + phrase("as_chance", language, chance=fit.chance)
        stdout.print(f"{fit.kind}, {fit.language}: {told}", soft_wrap=True)


def show_summary(found: Mapping[str, Any], language: "Language") -> None:
    """Print how many answers there are, and how many of each voice's are right."""
    from rich.table import Table

    stdout.print(
        phrase(
            "collected", language, file=found["file"], answers=found["answers"],
            questions=found["questions"], share=found["share"] or 0.0,
        ),
        soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None, pad_edge=False)
    for key in ("voice", "answers", "right", "interval"):
        table.add_column(phrase(f"col_{key}", language))
    for voice, row in found["voices"].items():
        low, high = row["interval"]
        table.add_row(voice, str(row["answers"]), f"{row['share']:.0%}", f"{low:.0%} – {high:.0%}")
    stdout.print(table)
