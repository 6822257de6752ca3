"""Recipe + base config → BuildPlan."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from veche.checkpoint.config import spec_of
from veche.checkpoint.edit import edited, key_of
from veche.checkpoint.layers import deepened
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError
from veche.core.language import Language
from veche.planning.accounting import costs_of
from veche.planning.bases import load_base
from veche.planning.conflicts import find_conflicts, resolve_rope_length
from veche.planning.effects import judge, judge_copies, judge_follower
from veche.planning.feasibility import FEASIBLE, require_feasible_heads
from veche.planning.fields import FIELDS
from veche.planning.phrases import phrase
from veche.planning.plan import BuildPlan, Effect, FieldChange
from veche.planning.recipe import FieldWish, Recipe, resolve_value
from veche.planning.start import Start, require_deepenable, start_of
from veche.planning.steps import steps_of
from veche.planning.verdict import Case, Verdict
from veche.plugins.registry import require_known

_ABSENT = FieldWish(value=None)
_HEADS = ("num_attention_heads", "num_key_value_heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What a recipe means for a base, value by value.

    Attributes:
        recipe: in ModelSpec's names.
        base: as it is.
        start: where growth starts.
        values: of the fields that the recipe names, and of those that follow from them.
        followers: names of the latter that say something of each layer.
        language: of the reasons.
    """

    recipe: Recipe
    base: Start
    start: Start
    values: Mapping[str, Any]
    followers: frozenset[str]
    language: Language

    def applied(self, name: str) -> Any:
        """Return the value that the target will have."""
        own = self.start.value(name)
        is_applied = self.recipe.fields.get(name, _ABSENT).apply
        return self.values.get(name, own) if is_applied else own


def make_plan(recipe: Recipe, *, language: Language = "en") -> BuildPlan:
    """Decide what `recipe` means for its base, field by field.

    Raises:
        RecipeError: the recipe asks for what cannot be done.
        ConfigError: the base cannot be read.
        UnsupportedError: nothing can be built from the base.
    """
    config = load_base(recipe.base)
    base = Start(config=config, spec=spec_of(config, where=recipe.base))
    wishes = _wishes(recipe, base, language)
    changes = tuple(_field_change(name, wishes) for name in _names(wishes))
    _require_feasible_heads(wishes)
    applied = {c.name: c.target for c in changes if c.is_applied and c.base != c.target}
    target_config = edited(config, applied)
    target = spec_of(target_config, where=f"target of recipe {recipe.name!r}")
    _require_feasible(base.spec, target, target_config, recipe.base)
    conflicts = find_conflicts(
        wishes.recipe,
        changes,
        (wishes.start.spec, target),
        (wishes.start.config, target_config),
        language,
    )
    return BuildPlan(
        recipe=recipe.name,
        base=recipe.base,
        mode=recipe.mode,
        seed=recipe.seed,
        allow_lossy=recipe.allow_lossy,
        fields=_mark_conflicts(
            changes, {f: c.field_reason or c.reason for c in conflicts for f in c.fields}
        ),
        conflicts=conflicts,
        operations=_operations(base.spec, target, recipe),
        before=costs_of(base.spec),
        after=costs_of(target),
        base_config=config,
        target_config=target_config,
    )


def _wishes(recipe: Recipe, base: Start, language: Language) -> _Wishes:
    start = start_of(recipe, base)
    recipe = _in_terms_of(start.spec, recipe)
    values = _wanted_values(recipe, start)
    followers = _followers(recipe, start, values)
    return _Wishes(
        recipe=recipe,
        base=base,
        start=start,
        values={**values, **followers},
        followers=frozenset(followers),
        language=language,
    )


def _in_terms_of(base: ModelSpec, recipe: Recipe) -> Recipe:
    """Return the recipe in ModelSpec's names: an expert's width is `intermediate_size` to some.

    Raises:
        RecipeError: both names are given.
    """
    key, name = base.family.expert_width_key, "moe_intermediate_size"
    if key in (None, name) or key not in recipe.fields:
        return recipe
    if name in recipe.fields:
        raise RecipeError(
            f"{key} and {name} are one field in a {base.model_type} model",
            hint=f"keep {name}",
        )
    fields = {name if field == key else field: wish for field, wish in recipe.fields.items()}
    return recipe.model_copy(update={"fields": fields})


def _wanted_values(recipe: Recipe, start: Start) -> dict[str, Any]:
    """Return the values that the recipe means, with its choice about rope carried out."""
    wanted = {
        name: resolve_value(name, wish.value, start.value(name))
        for name, wish in recipe.fields.items()
    }
    applied = {name: value for name, value in wanted.items() if recipe.fields[name].apply}
    rope = {
        name: applied.get(name, start.value(name))
        for name in ("rope_scaling", "max_position_embeddings")
    }
    return {**wanted, **resolve_rope_length(recipe, rope)}


def _followers(recipe: Recipe, start: Start, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that say something of each layer, as a deeper model needs them."""
    wish = recipe.fields.get("num_hidden_layers", _ABSENT)
    if "num_hidden_layers" not in values or not wish.apply:
        return {}
    found = deepened(start.config, values["num_hidden_layers"])
    return {
        key: value
        for key, value in found.items()
        if key not in values or values[key] == start.value(key)
    }


def _names(wishes: _Wishes) -> list[str]:
    """Return every field that the plan tells of, in the order of presentation."""
    head = ["model_type"] if wishes.start is not wishes.base else []
    return list(dict.fromkeys([*head, *FIELDS, *wishes.values]))


def _field_change(name: str, wishes: _Wishes) -> FieldChange:
    wish = wishes.recipe.fields.get(name, _ABSENT)
    before = wishes.start.value(name)
    case = Case(
        name=name,
        key=key_of(name, wishes.start.config, wishes.start.spec.family),
        before=before,
        after=wishes.values.get(name, before),
        base=wishes.start.spec,
        mode=wishes.recipe.mode,
        language=wishes.language,
        num_experts=wishes.applied("num_experts"),
        is_chosen=name in wishes.recipe.fields and wish.apply,
    )
    verdict = _verdict(case, wishes)
    reason = verdict.reason
    if not wish.apply:
        reason += f" ({phrase('not_applied', wishes.language)})"
    return FieldChange(
        name=name,
        base=wishes.base.value(name),
        target=case.after,
        effect=verdict.effect,
        reason=reason,
        is_lossy=verdict.is_lossy,
        is_applied=wish.apply,
        wish=wish.reason_in(wishes.language),
        instead_of=wish.instead_of,
        read_by=case.fact.sources if case.fact else (),
    )


def _verdict(case: Case, wishes: _Wishes) -> Verdict:
    if case.name in wishes.followers:
        return judge_follower(case)
    verdict = judge(case)
    is_new = wishes.base.value(case.name) != case.before
    return judge_copies(case) if is_new and verdict.effect is Effect.UNCHANGED else verdict


def _mark_conflicts(
    changes: tuple[FieldChange, ...], reasons: dict[str, str]
) -> tuple[FieldChange, ...]:
    """Give every field of a conflict that effect, and its reason before the field's own."""
    return tuple(
        replace(
            change,
            effect=Effect.CONFLICT,
            reason=f"{reasons[change.name]}; {change.reason}",
        )
        if change.name in reasons
        else change
        for change in changes
    )


def _require_feasible_heads(wishes: _Wishes) -> None:
    """Judge both kinds of heads together, before a config.json is made of what cannot be."""
    start, heads = wishes.start.spec, {name: wishes.applied(name) for name in _HEADS}
    after = replace(start, **heads)
    if after != start:
        require_feasible_heads(start, after)


def _require_feasible(
    base: ModelSpec, target: ModelSpec, target_config: Mapping[str, Any], name: str
) -> None:
    """Ask every operation that leads to the target whether it can."""
    if target.num_hidden_layers != base.num_hidden_layers:
        require_deepenable(target_config, name)
    for step in steps_of(base, target):
        FEASIBLE[step.operation](step.before, step.after)


def _operations(base: ModelSpec, target: ModelSpec, recipe: Recipe) -> tuple[str, ...]:
    """Return the operations that the fields need, then those that the recipe names.

    Raises:
        UnsupportedError: no installed package brings one of them.
        RecipeError: one is veche's own, which follows from fields.
    """
    for name in recipe.operations:
        if name in FEASIBLE:
            raise RecipeError(
                f"operations: {name} follows from the fields of the recipe",
                hint="leave it out of `operations`, and set the field that needs it",
            )
        require_known("operations", name)
    return (*(step.operation for step in steps_of(base, target)), *recipe.operations)
