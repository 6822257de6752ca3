"""The contract between deciding and doing: what each field becomes, and what that moves."""

from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from veche.checkpoint.config import spec_of
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import ConfigError, RecipeError, VecheError
from veche.core.files import read_json_object
from veche.planning.accounting import Costs, costs_of
from veche.planning.steps import Step, steps_of

SCHEMA = 1
Mode = Literal["zero", "split"]
"""How new units start: silent (`zero`), or as a share of an old one's work (`split`)."""


class Effect(StrEnum):
    """What changing a field does."""

    UNCHANGED = "unchanged"
    """The recipe leaves it as it is."""
    INERT = "inert"
    """Nothing reads it when the model runs."""
    TRAINING_ONLY = "training_only"
    """Only training reads it."""
    CONFIG_ONLY = "config_only"
    """No weight moves; where it is lossy, every answer changes and the change is measured."""
    EXACT = "exact"
    """New weights, the same function."""
    CONFLICT = "conflict"
    """It contradicts another field: somebody must choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field of config.json.

    Attributes:
        name: ModelSpec's name of it.
        base: its value in the base model.
        target: the value that the recipe asks for.
        effect: what the change does.
        reason: why that is its effect, in the user's language.
        is_lossy: whether answers change.
        is_applied: False where the recipe plans it without carrying it out.
        wish: what the recipe hopes for, in the recipe's words.
        read_by: lines of engines that read the field, as "engine version path:line"; empty where
            nobody was found to.
        instead_of: what was asked for first, where the recipe departs from it; `wish` says why.
    """

    name: str
    base: Any
    target: Any
    effect: Effect
    reason: str
    is_lossy: bool = False
    is_applied: bool = True
    wish: str = ""
    read_by: tuple[str, ...] = ()
    instead_of: Any = None

    @property
    def is_told(self) -> bool:
        """Whether it is worth a line: something changes, or something else was asked for."""
        return self.effect is not Effect.UNCHANGED or self.instead_of is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A way out of a conflict, and the flag that takes it."""

    flag: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Fields that contradict each other, and the ways out.

    Attributes:
        fields: in question.
        reason: what contradicts what.
        resolutions: each a way out.
        field_reason: what a field's own line says of it; empty for `reason`.
    """

    fields: tuple[str, ...]
    reason: str
    resolutions: tuple[Resolution, ...]
    field_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """Everything that surgery needs to know. It is executed as it stands, or refused.

    Attributes:
        recipe: name of the recipe.
        base: name or path of the base model.
        mode: how new units start.
        seed: of every random number.
        allow_lossy: whether the owner agreed to fields that change answers.
        fields: every field of the family, in the order of presentation.
        conflicts: what must be chosen before a build.
        operations: names of the surgical operations, in order; those of other packages come last.
        before: costs of the base model.
        after: costs of the target.
        base_config: the base's config.json.
        target_config: the target's config.json.
    """

    recipe: str
    base: str
    mode: Mode = "zero"
    seed: int = 0
    allow_lossy: bool = False
    fields: tuple[FieldChange, ...]
    conflicts: tuple[Conflict, ...]
    operations: tuple[str, ...]
    before: Costs
    after: Costs
    base_config: dict[str, Any] = field(repr=False)
    target_config: dict[str, Any] = field(repr=False)

    @property
    def base_spec(self) -> ModelSpec:
        """The base model."""
        return spec_of(self.base_config, where=f"base of plan {self.recipe!r}")

    @property
    def target_spec(self) -> ModelSpec:
        """The model to be made."""
        return spec_of(self.target_config, where=f"target of plan {self.recipe!r}")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The operations that its fields need, in order, each with the model before and after."""
        return steps_of(self.base_spec, self.target_spec)

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that are carried out and their new values."""
        return {c.name: c.target for c in self.fields if c.is_applied and c.base != c.target}

    @property
    def lossy_fields(self) -> tuple[FieldChange, ...]:
        """Fields that are carried out and change answers."""
        return tuple(change for change in self.fields if change.is_lossy and change.is_applied)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values; `plan_from_dict` is its inverse."""
        fields = [{**asdict(change), "read_by": list(change.read_by)} for change in self.fields]
        return {"schema": SCHEMA, **asdict(self), "fields": fields}

    def require_buildable(self) -> None:
        """Refuse a plan in which something is still to be chosen.

        Raises:
            RecipeError: there are conflicts.
        """
        if self.conflicts:
            first = self.conflicts[0]
            raise RecipeError(
                f"plan {self.recipe!r} cannot be built: {first.reason}",
                hint="choose: " + "; ".join(r.flag for r in first.resolutions),
            )


def plan_from_dict(value: dict[str, Any], *, where: str = "plan") -> BuildPlan:
    """Rebuild a plan from its JSON.

    Raises:
        RecipeError: it is not a plan of this schema.
    """
    if value.get("schema") != SCHEMA:
        raise RecipeError(
            f"{where} is not a plan of this version of veche (schema {value.get('schema')!r})",
            hint="make it again with: veche plan RECIPE --out plan.json",
        )
    content = {key: item for key, item in value.items() if key not in ("schema", "accounting")}
    known = {each.name for each in dataclass_fields(BuildPlan)}
    if unknown := sorted(content.keys() - known):
        raise RecipeError(
            f"{where} is damaged: a plan has no key {unknown[0]!r}",
            hint="make it again with: veche plan RECIPE --out plan.json",
        )
    try:
        plan = TypeAdapter(BuildPlan).validate_python(content)
        _require_consistent(plan, where)
    except (ValidationError, ConfigError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        key = ".".join(str(part) for part in first["loc"]) + ": " if first else ""
        raise RecipeError(
            f"{where} is damaged: {key}{first['msg'].lower() if first else error}",
            hint="make it again with: veche plan RECIPE --out plan.json",
        ) from error
    return plan


def _require_consistent(plan: BuildPlan, where: str) -> None:
    """Refuse a plan whose parts do not belong together: somebody changed it by hand.

    Raises:
        RecipeError: its operations, its costs, or the sizes in its fields, are not those of its
            two configs.
    """
    base, target = plan.base_spec, plan.target_spec
    is_whole = (
        costs_of(base) == plan.before
        and costs_of(target) == plan.after
        and plan.operations[: len(plan.steps)] == tuple(step.operation for step in plan.steps)
    )
    for change in plan.fields:
        is_size = isinstance(change.target, int) and change.effect is not Effect.INERT
        if change.is_applied and is_size and hasattr(target, change.name):
            is_whole = is_whole and getattr(target, change.name) == change.target
    if not is_whole:
        raise RecipeError(
            f"{where} does not agree with itself: its fields, its costs and its target_config "
            "were not made together",
            hint="make it again with: veche plan RECIPE --out plan.json",
        )


def read_plan(path: Path) -> BuildPlan:
    """Read a plan that was written as JSON.

    Raises:
        RecipeError: the file is missing, damaged or not a plan.
    """
    try:
        value = read_json_object(path)
    except VecheError as error:
        raise RecipeError(error.message, hint=error.hint) from error
    return plan_from_dict(value, where=str(path))
