"""Recipe + base config → BuildPlan."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from veche.checkpoint.config import require_unquantised, spec_of
from veche.checkpoint.edit import edited, key_of
from veche.checkpoint.families import QkNorm
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError, UnsupportedError
from veche.core.language import Language
from veche.planning.accounting import costs_of
from veche.planning.bases import load_base
from veche.planning.conflicts import find_conflicts, resolve_rope_length
from veche.planning.effects import Case, judge
from veche.planning.fields import FIELDS, value_of
from veche.planning.heads import is_feasible, nearest_feasible
from veche.planning.phrases import phrase
from veche.planning.plan import BuildPlan, Effect, FieldChange
from veche.planning.recipe import FieldWish, Recipe, resolve_value

_ABSENT = FieldWish(value=None)


def make_plan(recipe: Recipe, *, language: Language = "en") -> BuildPlan:
    """Decide what `recipe` means for its base, field by field.

    Raises:
        RecipeError: the recipe asks for what cannot be done.
        ConfigError: the base cannot be read.
    """
    base_config = load_base(recipe.base)
    base = spec_of(base_config, where=recipe.base)
    require_plannable(base_config, base, recipe.base)
    recipe = _in_terms_of(base, recipe)
    wanted = _wanted_values(recipe, base, base_config)
    names = (*FIELDS, *(name for name in wanted if name not in FIELDS))
    changes = tuple(
        _field_change(name, recipe, base, base_config, wanted, language) for name in names
    )
    target_config = edited(
        base_config,
        {c.name: c.target for c in changes if c.is_applied and c.effect is not Effect.UNCHANGED},
    )
    _require_feasible_heads(base, {c.name: c.target if c.is_applied else c.base for c in changes})
    target = spec_of(target_config, where=f"target of recipe {recipe.name!r}")
    conflicts = find_conflicts(
        recipe, changes, (base, target), (base_config, target_config), language
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
        operations=_operations(base, target),
        before=costs_of(base),
        after=costs_of(target),
        base_config=base_config,
        target_config=target_config,
    )


def require_plannable(config: dict[str, Any], spec: ModelSpec, name: str) -> None:
    """Refuse a base that nothing can be built from.

    Raises:
        UnsupportedError: it has no experts, or its weights are quantised.
    """
    if not spec.is_moe:
        can_be_carved = spec.model_type == "llama"
        raise UnsupportedError(
            f"{name} is a dense {spec.model_type} model: it has no experts to plan",
            hint=f"carve it first: veche carve {name} --out carved"
            if can_be_carved
            else "plan a mixture of experts, or carve a dense llama model: veche carve --help",
        )
    require_unquantised(config, name)


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


def _wanted_values(
    recipe: Recipe, base: ModelSpec, base_config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values that the recipe means, with its choice about rope carried out."""
    wanted = {
        name: resolve_value(name, wish.value, _base_value(name, base, base_config))
        for name, wish in recipe.fields.items()
    }
    applied = {name: value for name, value in wanted.items() if recipe.fields[name].apply}
    rope = {
        name: applied.get(name, value_of(base, name))
        for name in ("rope_scaling", "max_position_embeddings")
    }
    return {**wanted, **resolve_rope_length(recipe, rope)}


def _base_value(name: str, base: ModelSpec, base_config: Mapping[str, Any]) -> Any:
    return value_of(base, name) if name in FIELDS else base_config.get(name)


def _field_change(
    name: str,
    recipe: Recipe,
    base: ModelSpec,
    base_config: Mapping[str, Any],
    wanted: Mapping[str, Any],
    language: Language,
) -> FieldChange:
    wish = recipe.fields.get(name, _ABSENT)
    before = _base_value(name, base, base_config)
    case = Case(
        name=name,
        key=key_of(name, base_config, base.family),
        before=before,
        after=wanted.get(name, before),
        base=base,
        mode=recipe.mode,
        language=language,
    )
    verdict = judge(case)
    reason = verdict.reason
    if not wish.apply:
        reason += f" ({phrase('not_applied', language)})"
    return FieldChange(
        name=name,
        base=before,
        target=case.after,
        effect=verdict.effect,
        reason=reason,
        is_lossy=verdict.is_lossy,
        is_applied=wish.apply,
        wish=wish.reason_in(language),
        instead_of=wish.instead_of,
        read_by=case.fact.sources if case.fact else (),
    )


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


def _require_feasible_heads(base: ModelSpec, target: dict[str, Any]) -> None:
    pair = (base.num_attention_heads, base.num_key_value_heads)
    new = (target["num_attention_heads"], target["num_key_value_heads"])
    if new == pair:
        return
    if base.family.qk_norm is QkNorm.FLAT:
        raise UnsupportedError(
            f"{base.model_type} normalises all heads together: adding heads changes the function",
            hint="leave num_attention_heads and num_key_value_heads as they are",
        )
    if not is_feasible(*pair, *new):
        ways = nearest_feasible(*pair, *new)
        raise RecipeError(
            f"{pair[0]} query heads on {pair[1]} key/value heads cannot become {new[0]} on "
            f"{new[1]} exactly: every old head must keep a copy of the key/value head it reads",
            hint="those that can, the nearest first: "
            + "; or ".join(
                f"--set num_attention_heads={q} --set num_key_value_heads={kv}" for q, kv in ways
            ),
        )


def _operations(base: ModelSpec, target: ModelSpec) -> tuple[str, ...]:
    """Name the operations that lead from one spec to the other, in the order of execution."""
    heads_change = (base.num_attention_heads, base.num_key_value_heads) != (
        target.num_attention_heads,
        target.num_key_value_heads,
    )
    width_changes = base.moe_intermediate_size != target.moe_intermediate_size
    gain_changes = (
        base.has_equal_routing_weights and base.num_experts_per_tok != target.num_experts_per_tok
    )
    needed = {
        "attention_heads": heads_change,
        "expert_width": width_changes,
        "expert_gain": gain_changes,
    }
    return tuple(name for name, is_needed in needed.items() if is_needed)
