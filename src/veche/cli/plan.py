"""`veche plan`: what a recipe would do to a model, field by field, and what that costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    chosen_language,
    print_json,
    printable,
    stdout,
)

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.planning.plan import BuildPlan

BaseOption = Annotated[
    str | None,
    typer.Option(help="Base model: a shipped name, a folder, a config.json or a hub id."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field: name=value or name=x1.5. Repeatable."),
]
UnsetOption = Annotated[
    list[str] | None,
    typer.Option("--unset", help="Take a field out of the recipe. Repeatable."),
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
CardsOption = Annotated[
    int | None, typer.Option("--tp", help="Cards that must be able to share the result.")
]


def plan(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE | diff A B",
            help="A shipped recipe (veche recipe list), a YAML file or a plan.json; "
            "or diff and two of them.",
        ),
    ],
    base: BaseOption = None,
    set_fields: SetOption = None,
    unset: UnsetOption = None,
    rope_length: RopeLengthOption = None,
    allow_lossy: LossyOption = None,
    mode: ModeOption = None,
    seed: SeedOption = None,
    tensor_parallel: CardsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write config.json, plan and pages into this folder; or a .json file."),
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
    as_html: Annotated[
        bool, typer.Option("--html", help="Print an HTML page with charts.")
    ] = False,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe would do: every field's effect, what moves, what it costs."""
    language = chosen_language(lang)
    choices: dict[str, Any] = {
        "base": base,
        "set_fields": set_fields,
        "unset": unset,
        "rope_length": rope_length,
        "allow_lossy": allow_lossy,
        "mode": mode,
        "seed": seed,
        "tensor_parallel": tensor_parallel,
    }
    form = _form(as_json=as_json, as_markdown=as_markdown, as_html=as_html)
    if recipes[0] == "diff":
        _compare(recipes[1:], language, choices, out, form)
        return
    if len(recipes) > 1:
        raise _too_many(recipes)
    made = planned(recipes[0], language, **choices)
    files = _written(made, out, language)
    _print(made, form, language)
    if form == "terminal":
        for file in files:
            stdout.print(str(file), markup=False, soft_wrap=True)


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
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given or ["set"])
            raise RecipeError(
                f"{recipe} is a finished plan: {flags} cannot change it",
                hint="give these options to veche plan, with the recipe",
            )
        return read_plan(Path(recipe))
    return make_plan(
        with_choices(load_recipe(recipe), {**choices, "fields": set_fields}), language=language
    )


def _form(*, as_json: bool, as_markdown: bool, as_html: bool) -> str:
    from veche.core.errors import InputError

    asked = [
        name
        for name, is_asked in (("json", as_json), ("markdown", as_markdown), ("html", as_html))
        if is_asked
    ]
    if len(asked) > 1:
        raise InputError(
            f"--{asked[0]} and --{asked[1]} both want the standard output",
            hint="choose one; --out FOLDER writes all of them",
        )
    return asked[0] if asked else "terminal"


def _print(made: "BuildPlan", form: str, language: "Language") -> None:
    """Print a plan in the form that was asked for."""
    import sys

    if form == "json":
        print_json(plan_report(made))
    elif form == "markdown":
        from veche.planning.markdown_page import plan_markdown

        sys.stdout.write(printable(plan_markdown(made, language)))
    elif form == "html":
        from veche.planning.html_page import plan_html

        sys.stdout.write(printable(plan_html(made, language)))
    else:
        from veche.cli.plan_view import show_plan

        show_plan(made, language)


def plan_report(made: "BuildPlan") -> dict[str, Any]:
    """Return the JSON object of `veche plan --json`: the plan, and its costs taken apart."""
    from dataclasses import asdict

    from veche.planning.breakdown import breakdown_of

    sides = (("before", made.base_spec), ("after", made.target_spec))
    return {
        **made.as_dict(),
        "accounting": {side: asdict(breakdown_of(spec)) for side, spec in sides},
    }


def _written(made: "BuildPlan", out: Path | None, language: "Language") -> list[Path]:
    if out is None:
        return []
    from veche.planning.plan_files import write_plan

    return write_plan(made, out, language)


def _compare(
    recipes: list[str],
    language: "Language",
    choices: dict[str, Any],
    out: Path | None,
    form: str,
) -> None:
    """Print the difference of two plans."""
    from veche.cli.plan_view import show_difference
    from veche.core.errors import InputError
    from veche.planning.difference import difference_of

    if len(recipes) != 2:
        raise InputError(
            f"diff compares two plans, {len(recipes)} are given",
            hint="veche plan diff agi agi-fits",
        )
    if out is not None or form in ("markdown", "html"):
        raise InputError("diff prints a table, or --json", hint="veche plan diff A B --json")
    shared = {name: value for name, value in choices.items() if value is not None}
    first, second = (planned(recipe, language, **shared) for recipe in recipes)
    difference = difference_of(first, second)
    if form == "json":
        print_json(difference.as_dict())
    else:
        show_difference(difference, language)


def _too_many(recipes: list[str]) -> Exception:
    from veche.core.errors import InputError

    return InputError(
        f"one recipe at a time: {recipes[1]!r} is one too many",
        hint="to compare two: veche plan diff A B; all there is: veche plan --help",
    )
