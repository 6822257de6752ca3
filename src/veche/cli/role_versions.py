"""`veche role new`, `use`, `remove`: make versions of roles, choose one, forget some."""

from pathlib import Path
from typing import Annotated

import typer

from veche.cli.role_options import KindOption, NoteOption, chosen_kind
from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

RoleArgument = Annotated[str, typer.Argument(help="The role's name.")]


def new(
    name: Annotated[str, typer.Argument(help="Its name, such as strict-logician.")],
    parent: Annotated[
        str | None,
        typer.Option("--from", help="A role to begin with; itself, for a new version."),
    ] = None,
    kind: KindOption = None,
    prompt: Annotated[
        str | None, typer.Option(help="How it should think; the same in every language.")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="How people call it.", show_default="after its name")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of its sampling.", show_default="0, greedy")
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Active experts while it speaks.", show_default="the model's"),
    ] = None,
    steering: Annotated[
        Path | None, typer.Option(help="A steering that veche steer find wrote.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Of the steering, in nats.", show_default="1")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="SPDX identifier.", show_default="Apache-2.0")
    ] = None,
    note: NoteOption = "",
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a role, or a new version of one."""
    from veche.cli.role_view import say
    from veche.roles.new_role import RoleWish, new_role
    from veche.roles.registry import Registry
    from veche.roles.role_file import as_dict

    language = chosen_language(lang)
    wish = RoleWish(
        kind=chosen_kind(kind),
        title=title,
        prompt=prompt,
        temperature=temperature,
        num_experts_per_tok=top_k,
        steering=steering,
        strength=strength,
        license=license_,
    )
    role, version = new_role(Registry(), name, wish, parent=parent, note=note)
    if as_json:
        print_json({"role": as_dict(role), "version": version.number})
    else:
        stdout.print(say("saved", language, name=name, number=version.number), soft_wrap=True)


def use(
    name: RoleArgument,
    version: Annotated[int, typer.Argument(min=0, help="0 is the one that a package brings.")],
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a version in use: it is what the role's name means from now on."""
    from veche.cli.role_view import say
    from veche.roles.registry import Registry

    language = chosen_language(lang)
    Registry().use(name, version)
    if as_json:
        print_json({"name": name, "version": version})
    else:
        stdout.print(say("used", language, name=name, number=version), soft_wrap=True)


def remove(
    name: RoleArgument,
    version: Annotated[
        int | None, typer.Option(min=1, help="A version.", show_default="all own ones")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a version, or all of a role's own, and what nothing uses any more."""
    from veche.cli.role_view import say
    from veche.roles.registry import Registry

    language = chosen_language(lang)
    freed = Registry().remove(name, version)
    if as_json:
        print_json({"name": name, "version": version, "freed": freed})
    else:
        key = "all_removed" if version is None else "removed"
        stdout.print(say(key, language, name=name, number=version), soft_wrap=True)
        if freed:
            stdout.print(say("freed", language, num=len(freed)), soft_wrap=True)
