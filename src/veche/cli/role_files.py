"""`veche role import`, `export`: roles and their adapters, to and from the wider world."""

from pathlib import Path
from typing import Annotated

import typer

from veche.cli.role_options import KindOption, NoteOption, chosen_kind
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stderr,
    stdout,
)


def import_(
    source: Annotated[
        Path, typer.Argument(help="A PEFT folder, a folder of role export, or a role's YAML.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The role's name.", show_default="as the files say")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The folder of the model that the adapter is for.")
    ] = None,
    invocation: Annotated[
        str | None,
        typer.Option(
            help="Text from which the adapter acts.", show_default="found by the base's tokenizer"
        ),
    ] = None,
    kind: KindOption = None,
    license_: Annotated[
        str | None,
        typer.Option(
            "--license", help="SPDX identifier of the adapter.", show_default="of its card"
        ),
    ] = None,
    note: NoteOption = "",
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in a role, or an adapter: of the role that has the name, or of a new one."""
    from veche.cli.role_view import say
    from veche.roles.registry import Registry
    from veche.roles.role_file import as_dict
    from veche.roles.role_import import ImportWish, import_role

    language = chosen_language(lang)
    wish = ImportWish(
        name=name,
        kind=chosen_kind(kind) or "drafter",
        base=base,
        invocation=invocation,
        license=license_,
        note=note,
    )
    done = import_role(Registry(), source, wish, progress=TerminalProgress())
    told = [say(key, language, **values) for key, values in done.statements]
    if as_json:
        print_json({"role": as_dict(done.role), "version": done.version.number, "statements": told})
        return
    for line in told:
        stderr.print(line, soft_wrap=True)
    number = done.version.number
    stdout.print(say("saved", language, name=done.role.name, number=number), soft_wrap=True)


def export(
    name: Annotated[str, typer.Argument(help="The role's name.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    version: Annotated[
        int | None, typer.Option(min=0, help="A version.", show_default="the one in use")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a role to a folder: its YAML, a card, and its adapter as PEFT reads it."""
    from veche.roles.registry import Registry
    from veche.roles.role_export import export_role

    registry = Registry()
    files = export_role(registry, registry.get(name, version), out)
    if as_json:
        print_json({"folder": str(out), "files": files})
    else:
        stdout.print("\n".join(str(out / file) for file in files), soft_wrap=True)
