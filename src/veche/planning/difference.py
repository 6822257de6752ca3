"""Two plans side by side: which fields of their results differ, and what that costs."""

from dataclasses import asdict, dataclass
from typing import Any

from veche.planning.plan import BuildPlan, Effect, FieldChange
from veche.planning.summary import COSTS


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """A field whose value, or whose effect, is another one in each plan.

    Attributes:
        name: of the field.
        base: its value in the base of the first plan.
        first: its value in the first result; second: in the second.
        first_effect: its effect class in the first plan; second_effect: in the second.
        first_wish: what the first recipe says of it; second_wish: what the second does.
    """

    name: str
    base: Any
    first: Any
    second: Any
    first_effect: str
    second_effect: str
    first_wish: str
    second_wish: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDifference:
    """What tells two plans apart.

    Attributes:
        recipes: names of the two.
        bases: their bases.
        fields: those that differ.
        operations: the operations of each.
        costs: name of a cost → its value in each result.
        num_conflicts: undecided conflicts of each.
    """

    recipes: tuple[str, str]
    bases: tuple[str, str]
    fields: tuple[FieldDifference, ...]
    operations: tuple[tuple[str, ...], tuple[str, ...]]
    costs: dict[str, tuple[int, int]]
    num_conflicts: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def difference_of(first: BuildPlan, second: BuildPlan) -> PlanDifference:
    """Compare the results of two plans, field by field.

    A field that is planned but not applied counts with its base's value.
    """
    ours, theirs = ({change.name: change for change in plan.fields} for plan in (first, second))
    pairs = [
        (ours.get(name) or _left_alone(first, name), theirs.get(name) or _left_alone(second, name))
        for name in dict.fromkeys([*ours, *theirs])
    ]
    differences = [
        FieldDifference(
            name=one.name,
            base=one.base,
            first=_result(one),
            second=_result(other),
            first_effect=one.effect,
            second_effect=other.effect,
            first_wish=one.wish,
            second_wish=other.wish,
        )
        for one, other in pairs
        if _result(one) != _result(other)
    ]
    return PlanDifference(
        recipes=(first.recipe, second.recipe),
        bases=(first.base, second.base),
        fields=tuple(differences),
        operations=(first.operations, second.operations),
        costs={
            name: (getattr(first.after, name), getattr(second.after, name)) for name, _ in COSTS
        },
        num_conflicts=(len(first.conflicts), len(second.conflicts)),
    )


def _result(change: FieldChange) -> Any:
    return change.target if change.is_applied else change.base


def _left_alone(plan: BuildPlan, name: str) -> FieldChange:
    """Return a field that only the other plan names."""
    value = plan.base_config.get(name)
    return FieldChange(name=name, base=value, target=value, effect=Effect.UNCHANGED, reason="")
