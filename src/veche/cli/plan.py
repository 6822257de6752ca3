"""`veche plan`: what a recipe would do to a model, field by field, and what that costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.planning.plan import BuildPlan

BaseOption = Annotated[
    str | None,
    typer.Option(help="Base model: a shipped name, a checkpoint folder or a config.json."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field: name=value or name=x1.5. Repeatable."),
]
RopeLengthOption = Annotated[
    str | None,
    typer.Option(help="Where rope and length disagree: extend, keep-length or as-written."),
]
LossyOption = Annotated[
    bool | None, typer.Option("--allow-lossy", help="Agree to fields that change answers.")
]
ModeOption = Annotated[
    str | None, typer.Option(help="How new units start: zero (silent) or split (shares).")
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of every random number.")]


def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (agi, demo) or a YAML file.")],
    base: BaseOption = None,
    set_fields: SetOption = None,
    rope_length: RopeLengthOption = None,
    allow_lossy: LossyOption = None,
    mode: ModeOption = None,
    seed: SeedOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan here, as JSON.")] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe would do: every field's effect, what moves, what it costs."""
    from veche.core.files import write_json
    from veche.planning.phrases import phrase

    language = chosen_language(lang)
    made = planned(
        recipe,
        language,
        base=base,
        set_fields=set_fields,
        rope_length=rope_length,
        allow_lossy=allow_lossy,
        mode=mode,
        seed=seed,
    )
    if out is not None:
        write_json(out, made.as_dict())
    if as_json:
        print_json(made.as_dict())
        return
    show_plan(made, language)
    if out is not None:
        stdout.print(phrase("written", language, path=out), markup=False)


def planned(
    recipe: str, language: "Language", *, set_fields: list[str] | None = None, **choices: Any
) -> "BuildPlan":
    """Return the plan that the command line asks for; `recipe` may also be a plan.json."""
    from veche.core.errors import RecipeError
    from veche.planning.plan import read_plan
    from veche.planning.planner import make_plan
    from veche.planning.recipe import load_recipe, with_choices

    if recipe.endswith(".json"):
        given = [name for name, value in choices.items() if value is not None]
        if given or set_fields:
            raise RecipeError(
                f"{recipe} is a finished plan: {', '.join(given or ['set'])} cannot change it",
                hint="give these options to veche plan, with the recipe",
            )
        return read_plan(Path(recipe))
    return make_plan(
        with_choices(load_recipe(recipe), {**choices, "fields": set_fields}), language=language
    )


def show_plan(plan: "BuildPlan", language: "Language") -> None:
    """Print a plan for people."""
    from veche.planning.phrases import phrase

    def say(key: str, **values: object) -> str:
        return phrase(key, language, **values)

    stdout.print(say("title", recipe=plan.recipe, base=plan.base), style="bold", markup=False)
    _show_fields(plan, say)
    if plan.operations:
        stdout.print(say("moves", operations=", ".join(plan.operations)), markup=False)
    else:
        stdout.print(say("moves_nothing"), markup=False)
    _show_costs(plan, say)
    for conflict in plan.conflicts:
        stdout.print(
            f"\n{say('conflict_title')}: {conflict.reason}", style="bold red", markup=False
        )
        for way in conflict.resolutions:
            stdout.print(f"  {way.flag}: {way.description}", markup=False)
    if plan.conflicts:
        stdout.print(say("cannot_build"), markup=False)


_COLORS = {
    "unchanged": "dim",
    "inert": "yellow",
    "training_only": "yellow",
    "config_only": "magenta",
    "exact": "green",
    "conflict": "red",
}


def _show_fields(plan: "BuildPlan", say: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False, expand=True, show_lines=True)
    table.add_column(say("col_field"), no_wrap=True)
    table.add_column(say("col_effect"), ratio=1)
    rest = []
    for change in plan.fields:
        if change.effect == "unchanged":
            rest.append(change.name)
            continue
        effect = say(f"effect_{change.effect}")
        if change.is_lossy:
            effect += f" ({say('lossy_mark')})"
        values = f"{_short(change.base)} → {_short(change.target)}"
        told = Text.assemble((effect, _COLORS[change.effect]), "\n", change.reason)
        if change.wish:
            told.append(f"\n“{change.wish}”", style="dim italic")
        table.add_row(Text.assemble((change.name, "bold"), "\n", values), told)
    stdout.print(table)
    if rest:
        stdout.print(say("unchanged_rest", fields=", ".join(rest)), style="dim", markup=False)


def _show_costs(plan: "BuildPlan", say: Any) -> None:
    from rich.table import Table

    from veche.core.units import format_bytes, format_count

    table = Table(show_edge=False, pad_edge=False)
    for key in ("cost_title", "cost_before", "cost_after"):
        table.add_column(say(key), justify="left" if key == "cost_title" else "right")
    for name in (
        "parameters",
        "active_parameters",
        "weight_bytes",
        "kv_bytes_per_token",
        "flops_per_token",
    ):
        shown = format_bytes if "bytes" in name else format_count
        before, after = getattr(plan.before, name), getattr(plan.after, name)
        label = say(f"cost_{name}", context=plan.before.flops_context_tokens)
        table.add_row(label, shown(before), f"{shown(after)} (x{after / before:.2f})")
    stdout.print()
    stdout.print(table)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return f"{value.get('rope_type')} x{value.get('factor'):g}"
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)
