"""Options that several commands of `veche role` share."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from veche.roles.role import RoleKind

KindOption = Annotated[
    str | None,
    typer.Option(
        help="drafter, objector, synthesiser, observer or reader.",
        show_default="drafter, or as before",
    ),
]
NoteOption = Annotated[str, typer.Option(help="What to say of this version.")]


def chosen_kind(given: str | None) -> "RoleKind | None":
    """Return the kind of the option.

    Raises:
        InputError: there is none of that name.
    """
    from typing import get_args

    from veche.core.errors import InputError
    from veche.roles.role import RoleKind

    if given is not None and given not in get_args(RoleKind):
        raise InputError(
            f"no role is of kind {given!r}", hint=f"--kind takes: {', '.join(get_args(RoleKind))}"
        )
    return cast("RoleKind | None", given)
