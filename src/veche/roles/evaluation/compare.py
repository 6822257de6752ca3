"""Compare two roles, or two versions of one, on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.roles.evaluation.evaluate import Task, few_groups, prepare
from veche.roles.evaluation.scored import Candidate, Note, Part, Prepared, measured
from veche.roles.registry import Registry
from veche.roles.role import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two roles, measured on the same rows.

    Attributes:
        first: how the first is called, as NAME or NAME@VERSION.
        second: how the second is called.
        parts: what both can do; in each the second role comes first, and the gains of the other
            say by how much it is better.
        notes: what to know of all of them.
    """

    first: str
    second: str
    parts: tuple[Part, ...]
    notes: tuple[Note, ...] = ()


def compare(
    roles: tuple[Role, Role],
    names: tuple[str, str],
    task: Task,
    registry: Registry,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Measure two roles on the same examples, paired.

    Args:
        roles: the second one is asked to be better.
        names: how they are called.
        task: what they are measured with; baselines are left out.
        registry: that holds what was trained for them.
        progress: told of each example.

    Raises:
        InputError: the two can't do the same thing.
        VecheError: as `evaluate`.
    """
    progress = progress or Silent()
    task = replace(task, learn_from=(), is_alone=True)
    first, second = (prepare(role, task, registry, progress=progress) for role in roles)
    pairs = [(base, other) for base in first for other in second if base.measures == other.measures]
    if not pairs:
        raise InputError(
            f"{names[0]} and {names[1]} do different things: {_what(first)}, and {_what(second)}",
            hint="compare two roles of one kind, or two versions of one: NAME@1 NAME@2",
        )
    parts = [_compared(base, other, names, progress) for base, other in pairs]
    return Comparison(
        first=names[0], second=names[1], parts=tuple(parts), notes=tuple(few_groups(parts))
    )


def _compared(base: Prepared, other: Prepared, names: tuple[str, str], progress: Progress) -> Part:
    if base.groups != other.groups:
        raise ValueError("two roles were prepared on other rows")
    called = [_called(other.role, names[1]), _called(base.role, names[0])]
    notes = {note.key: note for note in (*base.notes, *other.notes) if note.key in _TOLD}
    both = replace(other, candidates=tuple(called), notes=tuple(notes.values()))
    return measured(both, gains=tuple(other.role.statistics), progress=progress)


_TOLD = ("one_class", "unseen_labels", "all_in_scope", "read", "answered", "unused")


def _called(candidate: Candidate, name: str) -> Candidate:
    return replace(candidate, name=name)


def _what(prepared: Sequence[Prepared]) -> str:
    return ", ".join(each.measures for each in prepared)
