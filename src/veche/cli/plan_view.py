"""A plan, and the difference of two, as tables on the terminal."""

from itertools import groupby
from typing import TYPE_CHECKING

from veche.cli.terminal import stdout

if TYPE_CHECKING:
    from collections.abc import Callable

    from veche.core.language import Language
    from veche.planning.difference import PlanDifference
    from veche.planning.plan import BuildPlan
    from veche.planning.summary import CostRow

_COLORS = {
    "unchanged": "dim",
    "inert": "yellow",
    "training_only": "yellow",
    "config_only": "magenta",
    "exact": "green",
    "conflict": "red",
}


def show_plan(plan: "BuildPlan", language: "Language") -> None:
    """Print a plan for people."""
    from veche.planning.markdown_page import cards_line
    from veche.planning.phrases import phrase
    from veche.planning.summary import cost_rows, detail_rows, quiet_fields

    def say(key: str, **values: object) -> str:
        return phrase(key, language, **values)

    stdout.print(say("title", recipe=plan.recipe, base=plan.base), style="bold", markup=False)
    _show_fields(plan, language)
    if rest := quiet_fields(plan):
        stdout.print(say("unchanged_rest", fields=", ".join(rest)), style="dim", markup=False)
    moves = say("moves", operations=", ".join(plan.operations))
    stdout.print(moves if plan.operations else say("moves_nothing"), markup=False)
    _show_costs("cost_title", cost_rows(plan, language), say)
    for group, rows in groupby(detail_rows(plan, language), key=lambda row: row.group):
        _show_costs(group, list(rows), say)
    stdout.print("\n" + cards_line(plan, language), markup=False)
    for conflict in plan.conflicts:
        stdout.print(
            f"\n{say('conflict_title')}: {conflict.reason}", style="bold red", markup=False
        )
        for way in conflict.resolutions:
            stdout.print(f"  {way.flag}: {way.description}", markup=False)
    if plan.conflicts:
        stdout.print(say("cannot_build"), markup=False)


def show_difference(difference: "PlanDifference", language: "Language") -> None:
    """Print which fields of two results differ, and what each costs."""
    from rich.table import Table

    from veche.planning.accounting import FLOPS_CONTEXT_TOKENS
    from veche.planning.phrases import phrase
    from veche.planning.summary import COSTS, short_value

    first, second = difference.recipes
    stdout.print(phrase("diff_title", language, a=first, b=second), style="bold", markup=False)
    table = Table(show_edge=False, pad_edge=False)
    for title in (phrase("col_field", language), first, second):
        table.add_column(title)
    for each in difference.fields:
        cells = [
            f"{short_value(value)}\n{phrase(f'effect_{effect}', language)}"
            + (f"\n“{wish}”" if wish else "")
            for value, effect, wish in (
                (each.first, each.first_effect, each.first_wish),
                (each.second, each.second_effect, each.second_wish),
            )
        ]
        table.add_row(each.name, *cells)
        table.add_section()
    for name, shown in COSTS:
        label = phrase(f"cost_{name}", language, context=FLOPS_CONTEXT_TOKENS)
        table.add_row(label, *(shown(value, language) for value in difference.costs[name]))
    stdout.print(table)
    if not difference.fields:
        stdout.print(phrase("diff_same", language), markup=False)


def _show_fields(plan: "BuildPlan", language: "Language") -> None:
    from rich.table import Table
    from rich.text import Text

    from veche.planning.phrases import phrase
    from veche.planning.summary import field_rows

    table = Table(show_edge=False, pad_edge=False, expand=True, show_lines=True)
    table.add_column(phrase("col_field", language), no_wrap=True)
    table.add_column(phrase("col_effect", language), ratio=1)
    for row in field_rows(plan, language):
        told = Text.assemble((row.effect_text, _COLORS[row.effect]), "\n", row.reason)
        if row.wish:
            told.append(f"\n“{row.wish}”", style="dim italic")
        table.add_row(Text.assemble((row.name, "bold"), "\n", row.values), told)
    stdout.print(table)


def _show_costs(title: str, rows: "list[CostRow]", say: "Callable[[str], str]") -> None:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for key in (title, "cost_before", "cost_after"):
        table.add_column(say(key), justify="left" if key == title else "right")
    for row in rows:
        table.add_row(*row.cells)
    stdout.print()
    stdout.print(table)
