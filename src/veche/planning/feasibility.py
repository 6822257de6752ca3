"""What each operation can do exactly: one rule for the planner and for surgery.

A rule takes the model before its operation and the model after it. It returns nothing, or says
why not, with the nearest values that are feasible.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from veche.checkpoint.families import QkNorm
from veche.checkpoint.layers import MAX_LAYERS, layer_sources
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError, UnsupportedError
from veche.planning.heads import is_feasible, nearest_feasible

Rule = Callable[[ModelSpec, ModelSpec], None]


def require_growth(name: str, before: Any, after: Any, model_type: str) -> None:
    """Refuse to shrink a count, or to grow what is not there.

    Raises:
        RecipeError: with the value that keeps the model as it is.
    """
    if not isinstance(before, int):
        raise RecipeError(
            f"{name}: a {model_type} model has no such part",
            hint="leave this field out of the recipe",
        )
    if after is None or after < before:
        raise RecipeError(
            f"{name}: {before} → {after} would shrink the model, which throws trained weights away",
            hint=f"veche only grows: leave it with --set {name}={before}, or prune with a tool "
            "that retrains",
        )


def require_feasible_width(name: str, before: ModelSpec, after: ModelSpec) -> None:
    """Refuse an MLP that shrinks; any wider one is feasible.

    Args:
        name: moe_intermediate_size, shared_expert_intermediate_size or intermediate_size.
        before: the model.
        after: the wider model.

    Raises:
        RecipeError: it would shrink, or there is no such MLP.
    """
    require_growth(name, getattr(before, name), getattr(after, name), before.model_type)


def require_feasible_heads(before: ModelSpec, after: ModelSpec) -> None:
    """Refuse heads that cannot all keep the key/value head that they read.

    Raises:
        RecipeError: n_kv · ⌈G / G'⌉ > n_kv', or something shrinks.
        UnsupportedError: the family normalises all heads together.
    """
    pair = (before.num_attention_heads, before.num_key_value_heads)
    new = (after.num_attention_heads, after.num_key_value_heads)
    if before.family.qk_norm is QkNorm.FLAT and new != pair:
        raise UnsupportedError(
            f"{before.model_type} normalises all heads together: adding heads changes the function",
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


def require_feasible_experts(before: ModelSpec, after: ModelSpec) -> None:
    """Refuse experts that are not m copies of each, visited by m times the top-k.

    Raises:
        RecipeError: the number of experts, or the top-k, is not m times the old one.
    """
    count, new = before.num_experts, after.num_experts
    require_growth("num_experts", count, new, before.model_type)
    if new % count:
        fewer = new // count * count
        counts = [n for n in (fewer, fewer + count) if n > count]
        raise RecipeError(
            f"num_experts: {count} cannot become {new} exactly: every expert needs the same number "
            "of copies",
            hint="those that can, the nearest below and above: "
            + " or ".join(f"--set num_experts={n}" for n in counts),
        )
    top_k = before.num_experts_per_tok * (new // count)
    if after.num_experts_per_tok != top_k:
        raise RecipeError(
            f"num_experts_per_tok: {new} experts answer as {count} did with a top-k of {top_k}, "
            f"not of {after.num_experts_per_tok}",
            hint=f"--set num_experts_per_tok={top_k}",
        )


def require_layers(count: int) -> None:
    """Refuse more layers than a config.json may have.

    Raises:
        RecipeError: names the limit.
    """
    if count > MAX_LAYERS:
        raise RecipeError(
            f"num_hidden_layers: {count} is more than {MAX_LAYERS} layers",
            hint=f"at most --set num_hidden_layers={MAX_LAYERS}",
        )


def require_feasible_depth(before: ModelSpec, after: ModelSpec) -> None:
    """Refuse a deeper model in which a layer is not of its original's kind.

    Raises:
        RecipeError: it would shrink, or a copy of a dense layer is sparse, or the reverse.
    """
    require_growth(
        "num_hidden_layers", before.num_hidden_layers, after.num_hidden_layers, before.model_type
    )
    require_layers(after.num_hidden_layers)
    sources = layer_sources(before.num_hidden_layers, after.num_hidden_layers)
    for layer, source in enumerate(sources):
        if after.is_sparse_layer(layer) != before.is_sparse_layer(source):
            kind = "dense" if after.is_sparse_layer(layer) else "a mixture of experts"
            raise RecipeError(
                f"num_hidden_layers: layer {layer} of the deeper model is of old layer {source}, "
                f"which is {kind}; decoder_sparse_step and mlp_only_layers say otherwise",
                hint="leave decoder_sparse_step and mlp_only_layers out of the recipe: they follow",
            )


def require_feasible_untie(before: ModelSpec, after: ModelSpec) -> None:
    """Refuse to tie what is not tied.

    Raises:
        RecipeError: a trained output layer would be thrown away.
    """
    if after.tie_word_embeddings or not before.tie_word_embeddings:
        raise RecipeError(
            "tie_word_embeddings: false → true would throw the trained output layer away",
            hint="leave it with --set tie_word_embeddings=false",
        )


def require_feasible_upcycle(before: ModelSpec, after: ModelSpec) -> None:
    """Refuse a mixture of copies that would not be the dense model.

    Raises:
        RecipeError: the wish is at fault.
        UnsupportedError: the dense model is.
    """
    wanted = before.family.mixture_type
    if wanted is None or after.model_type != wanted:
        raise UnsupportedError(
            f"a {before.model_type} model cannot become a {after.model_type} of copies",
            hint=f"it can become a {wanted}" if wanted else "it has experts already",
        )
    if before.has_attention_bias != after.has_attention_bias:
        raise UnsupportedError(
            f"attention_bias: a {wanted} model has no room for this {before.model_type}'s "
            "attention biases",
            hint="take a base without them",
        )
    if not 1 <= after.num_experts_per_tok <= after.num_experts:
        raise RecipeError(
            f"num_experts_per_tok {after.num_experts_per_tok} is more than the "
            f"{after.num_experts} experts",
            hint=f"at most --set num_experts_per_tok={after.num_experts}",
        )
    if not after.norm_topk_prob:
        raise RecipeError(
            "norm_topk_prob: false would leave a token less than the whole MLP: copies are exact "
            "only with weights that sum to 1",
            hint="leave it with --set norm_topk_prob=true",
        )
    if after.num_sparse_layers != after.num_hidden_layers:
        raise RecipeError(
            "decoder_sparse_step and mlp_only_layers: every layer becomes a mixture of copies",
            hint="leave them out of the recipe",
        )
    require_growth(
        "moe_intermediate_size",
        before.intermediate_size,
        after.moe_intermediate_size,
        before.model_type,
    )


def require_feasible_gain(before: ModelSpec, after: ModelSpec) -> None:
    """Refuse a scaled top-k that is none, or where routing weights are not equal.

    Raises:
        RecipeError: there are not so many experts.
        UnsupportedError: a gain would not make experts as loud as they were.
    """
    if not before.has_equal_routing_weights:
        raise UnsupportedError(
            "expert_gain: the routing weights of this model are not equal, so that no scale makes "
            "up for another top-k",
            hint="plan it again: veche plan",
        )
    if not 1 <= after.num_experts_per_tok <= before.num_experts:
        raise RecipeError(
            f"num_experts_per_tok {after.num_experts_per_tok} is not within 1 to "
            f"{before.num_experts}, the number of experts",
            hint=f"at most --set num_experts_per_tok={before.num_experts}",
        )


FEASIBLE: Mapping[str, Rule] = {
    "upcycle": require_feasible_upcycle,
    "experts": require_feasible_experts,
    "depth": require_feasible_depth,
    "untie": require_feasible_untie,
    "attention_heads": require_feasible_heads,
    "expert_width": partial(require_feasible_width, "moe_intermediate_size"),
    "shared_expert_width": partial(require_feasible_width, "shared_expert_intermediate_size"),
    "dense_width": partial(require_feasible_width, "intermediate_size"),
    "expert_gain": require_feasible_gain,
}
"""Operation, as in `steps_of`, → its rule."""
