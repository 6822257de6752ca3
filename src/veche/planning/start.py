"""Where growth starts: the base, or the mixture of copies that a dense base becomes first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from veche.checkpoint.config import require_unquantised, spec_of
from veche.checkpoint.edit import edited
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError, UnsupportedError
from veche.planning.fields import FIELDS, value_of
from veche.planning.recipe import Recipe, resolve_value

_CHOSEN = ("num_experts", "num_experts_per_tok")
"""What a recipe must say to make a mixture of a dense model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A model as it stands before anything grows, and as a recipe's fields refer to it."""

    config: Mapping[str, Any]
    spec: ModelSpec

    def value(self, name: str) -> Any:
        """Return a field's value, for a field of the table or any other key of config.json."""
        if name in FIELDS:
            return value_of(self.spec, name)
        return self.config.get(name)


def start_of(recipe: Recipe, base: Start) -> Start:
    """Return where growth starts: `base`, or what its copies make of it.

    Raises:
        RecipeError: the recipe makes a mixture of a dense base and does not say how large.
        UnsupportedError: the base is quantised, or dense and the recipe leaves it so, or its
            mixture would not be the same function.
    """
    if base.spec.is_moe:
        require_unquantised(dict(base.config), recipe.base)
        return base
    chosen = {
        name: resolve_value(name, recipe.fields[name].value, None)
        for name in _CHOSEN
        if "num_experts" in recipe.fields and name in recipe.fields and recipe.fields[name].apply
    }
    if "num_experts" not in chosen:
        raise UnsupportedError(
            f"{recipe.base} is a dense {base.spec.model_type} model: it has no experts to plan",
            hint="make it a mixture of copies: --set num_experts=8 --set num_experts_per_tok=2; "
            f"or carve it: veche carve {recipe.base} --out carved",
        )
    if "num_experts_per_tok" not in chosen:
        raise RecipeError(
            "num_experts_per_tok is missing: a mixture of copies of a dense model needs both "
            "num_experts and num_experts_per_tok",
            hint="e.g. --set num_experts_per_tok=2",
        )
    return mixture_of(base, recipe.base, **chosen)


def mixture_of(base: Start, name: str, *, num_experts: int, num_experts_per_tok: int) -> Start:
    """Return a dense base as a mixture of copies of its MLPs.

    Raises:
        RecipeError: there would be fewer experts than a token visits.
        UnsupportedError: its mixture's family would compute something else.
    """
    require_unquantised(dict(base.config), name)
    _require_room(base, name)
    if num_experts_per_tok > num_experts:
        raise RecipeError(
            f"num_experts_per_tok {num_experts_per_tok} is more than the {num_experts} experts",
            hint=f"at most --set num_experts_per_tok={num_experts}",
        )
    changes = {
        "model_type": base.spec.family.mixture_type,
        "num_experts": num_experts,
        "num_experts_per_tok": num_experts_per_tok,
    }
    config = edited(base.config, changes)
    return Start(config=config, spec=spec_of(config, where=name))


def require_deepenable(config: Mapping[str, Any], name: str) -> None:
    """Refuse more layers where numbers of layers say which ones have a sliding window.

    Raises:
        UnsupportedError: use_sliding_window is true, and there is no list of layer_types.
    """
    if config.get("use_sliding_window") and not config.get("layer_types"):
        raise UnsupportedError(
            f"num_hidden_layers: {name} has use_sliding_window true, and max_window_layers says "
            "which layers have the window: it would fall on others in a deeper model",
            hint="write the base's windows as layer_types, one entry for each layer",
        )


def _require_room(base: Start, name: str) -> None:
    """Refuse what the mixture's family has no place for, or reads otherwise."""
    source, target = base.spec.model_type, base.spec.family.mixture_type
    what = {
        "mlp_bias": source == "llama" and bool(base.config.get("mlp_bias")),
        "attention_bias": source == "llama" and base.spec.has_attention_bias,
        "use_sliding_window": source != "llama" and bool(base.config.get("use_sliding_window")),
    }
    if found := [key for key, is_set in what.items() if is_set]:
        raise UnsupportedError(
            f"{found[0]}: {name} has it, and a {target} model "
            + ("puts windows on other layers" if "window" in found[0] else "has no such biases"),
            hint="no mixture of copies of this model is exact: take another base",
        )
