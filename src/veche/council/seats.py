"""Who sits in the council: roles of the registry."""

from collections.abc import Sequence

from veche.core.errors import InputError
from veche.roles.registry import Registry
from veche.roles.role import Role

DEFAULT = ("proposer", "logician", "objector", "synthesiser", "recursia")
"""Three who draft blind, one of whom objects; one who writes; one who watches."""
_SINGLE = ("objector", "synthesiser", "observer", "reader")
"""Kinds of which a council has one."""


def default_council(registry: Registry) -> tuple[Role, ...]:
    """Return the roles of a council that nobody changed."""
    return tuple(registry.get(name) for name in DEFAULT)


def seated(registry: Registry, names: Sequence[str]) -> tuple[Role, ...]:
    """Return the default council with other roles in it.

    An objector, a synthesiser or an observer takes the seat of the default one; a drafter and a
    reader join.

    Raises:
        RoleError: there is no role of that name.
        InputError: two are for one seat, or a reader has learnt nothing to read.
    """
    council = list(default_council(registry))
    guests = [registry.get(name) for name in dict.fromkeys(names)]
    for kind in _SINGLE:
        rivals = [guest.name for guest in guests if guest.kind == kind]
        if len(rivals) > 1:
            raise InputError(
                f"{' and '.join(rivals)} are both {kind}s, and a council has one",
                hint=f"name one of them: --role {rivals[0]}",
            )
    for guest in guests:
        if guest.kind == "reader" and guest.probe is None:
            raise InputError(
                f"role {guest.name!r} is a reader that has not learnt what can be asked",
                hint=f"veche role train {guest.name} MODEL --data FILE --part probe",
            )
        place = next((at for at, role in enumerate(council) if _is_for(guest, role)), len(council))
        council[place : place + 1] = [guest]
    return tuple(council)


def _is_for(guest: Role, seat: Role) -> bool:
    return guest.name == seat.name or (guest.kind == seat.kind and guest.kind in _SINGLE)
