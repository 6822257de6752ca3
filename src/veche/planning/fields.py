"""The fields of config.json that a recipe may name, in the order in which a plan shows them.

The table below holds what `ModelSpec` reads, under its names. A recipe may also name any other
key that its base's family has (planning/field_facts.json).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from veche.checkpoint.edit import scaling_of
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError

ValueType = Literal["count", "number", "flag", "text", "dtype", "rope"]
_ROPE_KEYS = {
    "rope_type", "type", "factor", "original_max_position_embeddings", "attention_factor",
    "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
}  # fmt: skip
_MAX_COUNT = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """What values a field takes."""

    name: str
    value_type: ValueType

    def checked(self, value: Any) -> Any:
        """Return `value` if the field can hold it.

        Raises:
            RecipeError: names the field, the value and what it takes.
        """
        if self.value_type == "count" and _is_number(value) and float(value).is_integer():
            value = int(value)
            if 0 < value <= _MAX_COUNT:
                return value
        elif self.value_type == "number" and _is_number(value) and 0 <= value < math.inf:
            return float(value)
        elif (
            (self.value_type == "flag" and isinstance(value, bool))
            or (self.value_type == "text" and isinstance(value, str) and value)
            or (self.value_type == "dtype" and value in DTYPES)
        ):
            return value
        elif self.value_type == "rope":
            return _checked_rope(value)
        raise RecipeError(
            f"{self.name}: {str(value)[:60]!r} is not {_TAKES[self.value_type]}",
            hint="give a value, or a factor of the base's value such as x1.5",
        )


_TAKES: dict[ValueType, str] = {
    "count": "a positive whole number",
    "number": "a number of at least 0",
    "flag": "true or false",
    "text": "a text",
    "dtype": "bfloat16, float16 or float32",
    "rope": "a rope_scaling mapping or null",
}

_TABLE: tuple[tuple[str, ValueType], ...] = (
    ("num_experts", "count"),
    ("num_experts_per_tok", "count"),
    ("moe_intermediate_size", "count"),
    ("shared_expert_intermediate_size", "count"),
    ("norm_topk_prob", "flag"),
    ("router_aux_loss_coef", "number"),
    ("max_position_embeddings", "count"),
    ("rope_scaling", "rope"),
    ("rope_theta", "number"),
    ("num_attention_heads", "count"),
    ("num_key_value_heads", "count"),
    ("head_dim", "count"),
    ("hidden_size", "count"),
    ("num_hidden_layers", "count"),
    ("vocab_size", "count"),
    ("attention_dropout", "number"),
    ("hidden_act", "text"),
    ("intermediate_size", "count"),
    ("rms_norm_eps", "number"),
    ("use_cache", "flag"),
    ("output_router_logits", "flag"),
    ("tie_word_embeddings", "flag"),
    ("torch_dtype", "dtype"),
)
FIELDS: dict[str, FieldRule] = {
    name: FieldRule(name=name, value_type=value_type) for name, value_type in _TABLE
}


DTYPES = ("bfloat16", "float16", "float32")
ALIASES = {"dtype": "torch_dtype", "num_local_experts": "num_experts"}
"""Other spellings of the same field: transformers 5's, and Mixtral's."""


def checked_key(name: str, value: Any, base: Any) -> Any:
    """Return `value` if a key beyond the table can hold it: it has the type that `base` has.

    Raises:
        RecipeError: it has not.
    """
    is_like = base is None or value is None or _json_type(value) == _json_type(base)
    if not is_like or not _is_json(value):
        raise RecipeError(
            f"{name}: {str(value)[:60]!r} is no value like the base's {base!r}",
            hint="give a value of the same kind",
        )
    return value


def value_of(spec: ModelSpec, name: str) -> Any:
    """Return a field's value in `spec`, as config.json would spell it."""
    if name == "rope_theta":
        return spec.rope.rope_theta
    if name == "rope_scaling":
        return scaling_of(spec.rope)
    return getattr(spec, name)


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list | tuple) else type(value).__name__


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
        and abs(value) < 1e300
    )


def _checked_rope(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RecipeError(
            f"rope_scaling: {str(value)[:60]!r} is not a mapping",
            hint="e.g. {rope_type: yarn, factor: 4, original_max_position_embeddings: 32768}",
        )
    if unknown := [key for key in value if key not in _ROPE_KEYS]:
        raise RecipeError(
            f"rope_scaling: there is no key {unknown[0]!r}",
            hint=f"known: {', '.join(sorted(_ROPE_KEYS))}",
        )
    kind = value.get("rope_type", value.get("type"))
    if kind not in ("default", "yarn", "linear", "dynamic"):
        raise RecipeError(
            f"rope_scaling: rope_type {kind!r} is not known",
            hint="default, yarn, linear or dynamic",
        )
    factor, original = value.get("factor", 1.0), value.get("original_max_position_embeddings")
    if not _is_number(factor) or factor < 1:
        raise RecipeError(f"rope_scaling: factor {factor!r} is not a number of at least 1")
    if original is not None and (not isinstance(original, int) or original <= 0):
        raise RecipeError(
            f"rope_scaling: original_max_position_embeddings {original!r} is no length"
        )
    rest = {key: item for key, item in value.items() if key not in ("type", "rope_type")}
    return {"rope_type": kind, **rest, "factor": float(factor)} if kind != "default" else None
