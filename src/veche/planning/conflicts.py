"""Fields that contradict each other, and the ways out."""

from typing import Any

from veche.core.language import Language
from veche.planning.phrases import phrase
from veche.planning.plan import Conflict, FieldChange, Resolution
from veche.planning.recipe import Recipe


def resolve_rope_length(recipe: Recipe, wanted: dict[str, Any]) -> dict[str, Any]:
    """Carry the recipe's choice about rope factor and length into the wanted values."""
    scaling, length = wanted.get("rope_scaling"), wanted.get("max_position_embeddings")
    original = (scaling or {}).get("original_max_position_embeddings")
    if not scaling or not original:
        return wanted
    if recipe.rope_length == "extend":
        return {**wanted, "max_position_embeddings": round(scaling["factor"] * original)}
    if recipe.rope_length == "keep-length" and length and length > original:
        return {**wanted, "rope_scaling": {**scaling, "factor": length / original}}
    return wanted


def find_conflicts(
    recipe: Recipe, changes: tuple[FieldChange, ...], language: Language
) -> tuple[Conflict, ...]:
    """Return what somebody must choose before this can be built."""
    by_name = {change.name: change for change in changes if change.is_applied}
    found = (
        _rope_length(recipe, by_name, language),
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
    ways.append(("as-written", phrase("resolve_as_written", language, reach=reach)))
    return Conflict(
        fields=("rope_scaling", "max_position_embeddings"),
        reason=phrase("rope_conflict", language, **values),
        resolutions=tuple(
            Resolution(flag=f"--rope-length {name}", description=text) for name, text in ways
        ),
    )


def _consent(
    recipe: Recipe, by_name: dict[str, FieldChange], language: Language
) -> Conflict | None:
    lossy = tuple(name for name, change in by_name.items() if change.is_lossy)
    if recipe.allow_lossy or not lossy:
        return None
    return Conflict(
        fields=lossy,
        reason=phrase("lossy_conflict", language, fields=", ".join(lossy)),
        resolutions=(
            Resolution(flag="--allow-lossy", description=phrase("resolve_lossy", language)),
        ),
    )
