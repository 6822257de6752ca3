"""Fields that contradict each other, and the ways out."""

from collections.abc import Mapping
from typing import Any

from veche.checkpoint.spec import ModelSpec
from veche.core.language import Language
from veche.planning.heads import is_feasible
from veche.planning.phrases import phrase
from veche.planning.plan import Conflict, FieldChange, Resolution
from veche.planning.recipe import Recipe
from veche.planning.tensor_parallel import can_split_heads, feasible_tensor_parallel

TOKEN_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def resolve_rope_length(recipe: Recipe, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the recipe's choice makes of rope factor and length; nothing where they agree.

    Args:
        recipe: with the choice.
        values: rope_scaling and max_position_embeddings as they would stand without it.
    """
    scaling, length = values["rope_scaling"], values["max_position_embeddings"]
    original = (scaling or {}).get("original_max_position_embeddings")
    if not scaling or not original:
        return {}
    if recipe.rope_length == "extend":
        return {"max_position_embeddings": round(scaling["factor"] * original)}
    if recipe.rope_length == "keep-length" and length > original:
        return {"rope_scaling": {**scaling, "factor": length / original}}
    return {}


def find_conflicts(
    recipe: Recipe,
    changes: tuple[FieldChange, ...],
    specs: tuple[ModelSpec, ModelSpec],
    configs: tuple[Mapping[str, Any], Mapping[str, Any]],
    language: Language,
) -> tuple[Conflict, ...]:
    """Return what somebody must choose before this can be built.

    Args:
        recipe: what was asked.
        changes: every field, judged.
        specs: the model where growth starts, and the one that would be made.
        configs: the config.json of the first and of the second.
        language: of the explanations.
    """
    by_name = {change.name: change for change in changes if change.is_applied}
    base, target = specs
    found = (
        _rope_length(recipe, by_name, language) or _shorter_reach(recipe, base, target, language),
        _top_k_of_copies(recipe, base, target, language),
        *_token_ids(*configs, language),
        _tensor_parallel(recipe, target, language),
        _consent(recipe, by_name, language),
    )
    return tuple(conflict for conflict in found if conflict)


def _rope_length(
    recipe: Recipe, by_name: dict[str, FieldChange], language: Language
) -> Conflict | None:
    if "rope_scaling" not in by_name or "max_position_embeddings" not in by_name:
        return None
    scaling = by_name["rope_scaling"].target
    length = by_name["max_position_embeddings"].target
    original = (scaling or {}).get("original_max_position_embeddings")
    if not scaling or not original or recipe.rope_length == "as-written":
        return None
    factor = scaling["factor"]
    reach = round(factor * original)
    if reach == length:
        return None
    values = {"factor": factor, "original": original, "reach": reach, "length": length}
    ways = [("extend", phrase("resolve_extend", language, reach=reach))]
    if length > original:
        keep = phrase("resolve_keep", language, factor=length / original, length=length)
        ways.append(("keep-length", keep))
    as_written = phrase("resolve_as_written", language, reach=reach, length=length)
    ways.append(("as-written", as_written))
    return Conflict(
        fields=("rope_scaling", "max_position_embeddings"),
        reason=phrase("rope_conflict", language, **values),
        resolutions=tuple(
            Resolution(flag=f"--rope-length {name}", description=text) for name, text in ways
        ),
    )


def _shorter_reach(
    recipe: Recipe, base: ModelSpec, target: ModelSpec, language: Language
) -> Conflict | None:
    """Find a scaling that reaches less than the base reads without it."""
    reach = target.rope.max_scaled_positions
    is_new = base.rope.max_scaled_positions is None
    if reach is None or not is_new or recipe.rope_length == "as-written":
        return None
    native = base.max_position_embeddings
    if reach >= native:
        return None
    factor, original = target.rope.factor, target.rope.original_max_position_embeddings
    ways = (
        ("--set rope_scaling=null", phrase("resolve_no_rope", language)),
        ("--rope-length as-written", phrase("resolve_shorter", language, reach=reach)),
    )
    return Conflict(
        fields=("rope_scaling",),
        reason=phrase(
            "native_conflict",
            language,
            factor=factor,
            original=original,
            reach=reach,
            native=native,
        ),
        resolutions=tuple(Resolution(flag=flag, description=text) for flag, text in ways),
    )


def _top_k_of_copies(
    recipe: Recipe, base: ModelSpec, target: ModelSpec, language: Language
) -> Conflict | None:
    """Find copies of experts without a word about how many of them a token visits."""
    name, times = "num_experts_per_tok", target.num_experts // base.num_experts
    if times == 1 or (name in recipe.fields and recipe.fields[name].apply):
        return None
    top_k = base.num_experts_per_tok
    ways = (
        (f"--set {name}={top_k * times}", phrase("resolve_times", language)),
        (f"--set {name}={top_k} --allow-lossy", phrase("resolve_keep_k", language)),
    )
    return Conflict(
        fields=("num_experts", name),
        reason=phrase(
            "experts_conflict",
            language,
            experts=target.num_experts,
            times=times,
            exact=top_k * times,
            top_k=top_k,
        ),
        field_reason=phrase("experts_conflict_field", language),
        resolutions=tuple(Resolution(flag=flag, description=text) for flag, text in ways),
    )


def _token_ids(
    base: Mapping[str, Any], target: Mapping[str, Any], language: Language
) -> list[Conflict]:
    """Find special tokens that the target has no row for."""
    size, found = target["vocab_size"], []
    for name in TOKEN_FIELDS:
        given = target.get(name)
        tokens = given if isinstance(given, list) else [given]
        outside = [t for t in tokens if isinstance(t, int) and not -1 <= t < size]
        if outside and given != base.get(name):
            reason = phrase(
                "vocab_conflict", language, field=name, token=outside[0], size=size, last=size - 1
            )
            own = "null" if base.get(name) is None else str(base[name]).replace(" ", "")
            way = Resolution(
                flag=f"--set {name}={own}",
                description=phrase("resolve_token", language, field=name),
            )
            found.append(Conflict(fields=(name,), reason=reason, resolutions=(way,)))
    return found


def _tensor_parallel(recipe: Recipe, target: ModelSpec, language: Language) -> Conflict | None:
    """Find out whether the cards that the owner has can share the target."""
    ranks, width = recipe.tensor_parallel, target.moe_intermediate_size or 1
    if not can_split_heads(target, ranks):
        reason = phrase(
            "tp_conflict",
            language,
            ranks=ranks,
            heads=target.num_attention_heads,
            kv=target.num_key_value_heads,
        )
        fields: tuple[str, ...] = ("num_attention_heads", "num_key_value_heads")
        wider = {"num_attention_heads": _next_heads(target, ranks)}
    elif width % ranks:
        reason = phrase("tp_width_conflict", language, ranks=ranks, width=width)
        fields = ("moe_intermediate_size",)
        wider = {"moe_intermediate_size": -(-width // ranks) * ranks}
    else:
        return None
    fewer = max(
        n for n in feasible_tensor_parallel(target, limit=ranks) if n == 1 or width % n == 0
    )
    ways = [
        Resolution(flag=f"--tp {fewer}", description=phrase("resolve_tp", language, ranks=fewer))
    ]
    ways += [
        Resolution(
            flag=f"--set {name}={value}",
            description=phrase("resolve_field", language, field=name, value=value),
        )
        for name, value in wider.items()
        if value
    ]
    return Conflict(fields=fields, reason=reason, resolutions=tuple(ways))


def _next_heads(target: ModelSpec, ranks: int) -> int | None:
    """Return the next number of query heads that `ranks` cards can share; None if kv forbids it."""
    heads, kv = target.num_attention_heads, target.num_key_value_heads
    if kv % ranks and ranks % kv:
        return None
    fitting = (n for n in range(heads, 4 * heads + 1) if n % ranks == 0)
    return next((n for n in fitting if is_feasible(heads, kv, n, kv)), None)


def _consent(
    recipe: Recipe, by_name: dict[str, FieldChange], language: Language
) -> Conflict | None:
    lossy = tuple(name for name, change in by_name.items() if change.is_lossy)
    if recipe.allow_lossy or not lossy:
        return None
    return Conflict(
        fields=lossy,
        reason=phrase("lossy_conflict", language, fields=", ".join(lossy)),
        field_reason=phrase("lossy_field", language),
        resolutions=(
            Resolution(flag="--allow-lossy", description=phrase("resolve_lossy", language)),
        ),
    )
