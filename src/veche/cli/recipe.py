"""`veche recipe`: start a recipe, list and show what there is, check one."""

from pathlib import Path
from typing import Annotated

import typer

from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

recipe = typer.Typer(
    name="recipe", help="Start, list, show and check recipes.", no_args_is_help=True
)


@recipe.command("list")
def list_recipes(lang: LanguageOption = None, as_json: JsonOption = False) -> None:
    """List the recipes that ship with veche."""
    from rich.table import Table

    from veche.planning.phrases import phrase
    from veche.planning.recipe import load_recipe, shipped_recipes

    language = chosen_language(lang)
    found = [load_recipe(name) for name in shipped_recipes()]
    if as_json:
        print_json({"recipes": [each.model_dump(exclude={"fields"}) for each in found]})
        return
    table = Table(show_edge=False, pad_edge=False, show_lines=True)
    for key in ("col_recipe", "col_base", "col_description"):
        table.add_column(phrase(key, language))
    for each in found:
        table.add_row(each.name, each.base, each.description.get(language, ""))
    stdout.print(table)


@recipe.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    as_json: JsonOption = False,
) -> None:
    """Print a recipe's YAML, to copy and change."""
    from veche.planning.recipe import load_recipe, recipe_text

    if as_json:
        print_json(load_recipe(name).model_dump())
        return
    stdout.out(recipe_text(name).rstrip(), highlight=False)


@recipe.command()
def new(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, e.g. mine.yaml.")],
    base: Annotated[
        str, typer.Option(help="A shipped base, a folder, a config.json or a hub id.")
    ] = "qwen3-30b-a3b",
    like: Annotated[
        str | None, typer.Option("--from", help="Copy this recipe instead of starting empty.")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a recipe to fill in: every field that can change, and what changing it would do."""
    from veche.core.errors import OutputError
    from veche.core.files import write_text
    from veche.planning.phrases import phrase
    from veche.planning.recipe import recipe_text
    from veche.planning.recipe_template import recipe_template

    language = chosen_language(lang)
    if out.suffix not in (".yaml", ".yml"):
        raise OutputError(
            f"{out} is no YAML file by its name", hint=f"veche recipe new {out.stem or 'mine'}.yaml"
        )
    if out.exists():
        raise OutputError(f"{out} exists, and veche overwrites nothing", hint="choose another name")
    text = recipe_text(like) if like else recipe_template(out.stem, base, language)
    write_text(out, text)
    if as_json:
        print_json({"file": str(out)})
        return
    stdout.print(phrase("recipe_written", language, path=out), markup=False, soft_wrap=True)


@recipe.command()
def check(
    name: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a recipe can be planned, and whether anything is left to decide."""
    from dataclasses import asdict

    from veche.cli.plan import planned
    from veche.planning.phrases import phrase

    language = chosen_language(lang)
    plan = planned(name, language)
    if as_json:
        conflicts = [asdict(each) for each in plan.conflicts]
        print_json({"recipe": plan.recipe, "is_decided": not conflicts, "conflicts": conflicts})
        return
    if not plan.conflicts:
        stdout.print(phrase("recipe_good", language, recipe=name), markup=False)
    for each in plan.conflicts:
        flags = "; ".join(way.flag for way in each.resolutions)
        text = phrase("recipe_undecided", language, recipe=name, reason=each.reason, flags=flags)
        stdout.print(text, markup=False, soft_wrap=True)
