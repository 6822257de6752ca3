"""`veche role`: who speaks, and what was trained for them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.role_compare import compare
from veche.cli.role_data import data
from veche.cli.role_eval import evaluate
from veche.cli.role_files import export, import_
from veche.cli.role_train import train
from veche.cli.role_versions import RoleArgument, new, remove, use
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    chosen_language,
    print_json,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from veche.roles.registry import Registry

role = typer.Typer(
    name="role",
    help="Roles: a prompt each, and what was trained for it; kept version by version.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

role.add_typer(data)
role.command()(train)
role.command("eval")(evaluate)
role.command()(compare)


@role.command("list")
def list_roles(lang: LanguageOption = None, as_json: JsonOption = False) -> None:
    """List every role, shipped and own, and what each consists of."""
    from veche.cli.role_view import show_list
    from veche.roles.registry import Registry

    language = chosen_language(lang)
    registry = Registry()
    rows = [_row(registry, name) for name in registry.names()]
    if as_json:
        print_json({"roles": rows})
    else:
        show_list(stdout, rows, language)


@role.command()
def show(
    name: RoleArgument,
    version: Annotated[
        int | None, typer.Option(min=0, help="A version.", show_default="the one in use")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a role, its versions, and where its files are."""
    from veche.cli.role_view import show_role
    from veche.core.errors import RoleError
    from veche.roles.registry import Registry, artefacts_of
    from veche.roles.role_file import as_dict

    language = chosen_language(lang)
    registry = Registry()
    shown = registry.get(name, version)
    versions = registry.versions(name)
    files: dict[str, str] = {}
    problems: list[str] = []
    for artefact in artefacts_of(shown):
        try:
            files[artefact.kind] = str(registry.folder(artefact))
        except RoleError as error:
            problems.append(error.message)
    if as_json:
        from dataclasses import asdict

        print_json(
            {
                "role": as_dict(shown),
                "files": files,
                "problems": problems,
                "versions": [asdict(item) for item in versions],
            }
        )
    else:
        show_role(stdout, shown, versions, files, language)
        for problem in problems:
            stderr.print(problem, soft_wrap=True)


for _command in (new, use, remove, export):
    role.command()(_command)
role.command("import")(import_)


def _row(registry: "Registry", name: str) -> dict[str, Any]:
    """Return what is known of a role; of a broken one, why it is."""
    from veche.core.errors import VecheError
    from veche.roles.registry import artefacts_of

    try:
        found = registry.get(name)
        versions = registry.versions(name)
    except VecheError as error:
        return {"name": name, "error": error.message}
    return {
        "name": name,
        "kind": found.kind,
        "title": dict(found.title),
        "version": next(item.number for item in versions if item.is_in_use),
        "num_versions": len(versions),
        "artefacts": [artefact.kind for artefact in artefacts_of(found)],
        "license": found.license,
    }
