"""What changing a field does to a model: its effect class, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError
from veche.core.language import Language
from veche.core.units import format_bytes
from veche.planning.accounting import BYTES_PER_VALUE, kv_bytes_per_token
from veche.planning.phrases import phrase
from veche.planning.plan import Effect, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The effect of one change."""

    effect: Effect
    reason: str
    is_lossy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change to be judged: field `name` goes from `before` to `after`."""

    name: str
    before: Any
    after: Any
    base: ModelSpec
    mode: Mode
    language: Language

    def say(self, key: str, **values: object) -> str:
        """Return a phrase with this case's own values at hand."""
        return phrase(key, self.language, before=self.before, after=self.after, **values)


def judge(case: Case) -> Verdict:
    """Return what the change does.

    Raises:
        RecipeError: no operation of this version can make it.
    """
    if case.before == case.after:
        return Verdict(effect=Effect.UNCHANGED, reason=case.say("unchanged"))
    return _JUDGES[case.name](case)


def _top_k(case: Case) -> Verdict:
    if case.after > case.base.num_experts:
        raise RecipeError(
            f"num_experts_per_tok {case.after} is more than the {case.base.num_experts} experts",
            hint=f"at most {case.base.num_experts}",
        )
    reason = case.say("top_k")
    if case.base.has_equal_routing_weights:
        reason += "; " + case.say("top_k_gain")
    return Verdict(effect=Effect.CONFIG_ONLY, is_lossy=True, reason=reason)


def _expert_width(case: Case) -> Verdict:
    _require_growth(case)
    start = case.say(f"start_{case.mode}")
    growth = case.after / case.before - 1
    return Verdict(effect=Effect.EXACT, reason=case.say("expert_width", growth=growth, start=start))


def _query_heads(case: Case) -> Verdict:
    _require_growth(case)
    start = case.say(f"start_{case.mode}")
    return Verdict(effect=Effect.EXACT, reason=case.say("query_heads", start=start))


def _kv_heads(case: Case) -> Verdict:
    _require_growth(case)
    value_bytes = BYTES_PER_VALUE.get(case.base.torch_dtype, 2)
    kv_before = kv_bytes_per_token(case.base, value_bytes)
    kv_after = kv_before * case.after // case.before
    reason = case.say(
        "kv_heads",
        ratio=case.after / case.before,
        kv_before=format_bytes(kv_before),
        kv_after=format_bytes(kv_after),
        dtype=case.base.torch_dtype,
    )
    return Verdict(effect=Effect.EXACT, reason=reason)


def _dense_width(case: Case) -> Verdict:
    base = case.base
    if base.num_sparse_layers < base.num_hidden_layers:
        return _impossible(case)
    reason = case.say(
        "dense_width_inert", step=base.decoder_sparse_step, layers=list(base.mlp_only_layers)
    )
    return Verdict(effect=Effect.INERT, reason=reason)


def _require_growth(case: Case) -> None:
    if not isinstance(case.before, int):
        raise RecipeError(
            f"{case.name}: a {case.base.model_type} model has no such part",
            hint="leave this field out of the recipe",
        )
    if case.after < case.before:
        raise RecipeError(
            f"{case.name}: {case.before} → {case.after} would shrink the model, which throws "
            "trained weights away",
            hint="veche only grows; prune with a tool that retrains, or leave the field as it is",
        )


def _impossible(case: Case) -> Verdict:
    raise RecipeError(
        f"{case.name}: {case.before} → {case.after} needs an operation that this version of veche "
        "does not have",
        hint="it can grow: moe_intermediate_size, num_attention_heads, num_key_value_heads",
    )


def _fixed(effect: Effect, key: str, *, is_lossy: bool = False) -> Callable[[Case], Verdict]:
    def verdict(case: Case) -> Verdict:
        return Verdict(effect=effect, is_lossy=is_lossy, reason=case.say(key))

    return verdict


_changes_answers = _fixed(Effect.CONFIG_ONLY, "changes_answers", is_lossy=True)
_JUDGES: Mapping[str, Callable[[Case], Verdict]] = {
    "num_experts": _impossible,
    "num_experts_per_tok": _top_k,
    "moe_intermediate_size": _expert_width,
    "shared_expert_intermediate_size": _impossible,
    "norm_topk_prob": _changes_answers,
    "router_aux_loss_coef": _fixed(Effect.TRAINING_ONLY, "router_aux_loss_coef"),
    "max_position_embeddings": _fixed(Effect.CONFIG_ONLY, "max_position_embeddings"),
    "rope_scaling": _fixed(Effect.CONFIG_ONLY, "rope_scaling", is_lossy=True),
    "rope_theta": _fixed(Effect.CONFIG_ONLY, "rope_theta", is_lossy=True),
    "num_attention_heads": _query_heads,
    "num_key_value_heads": _kv_heads,
    "head_dim": _impossible,
    "hidden_size": _impossible,
    "num_hidden_layers": _impossible,
    "vocab_size": _impossible,
    "attention_dropout": _fixed(Effect.TRAINING_ONLY, "attention_dropout"),
    "hidden_act": _changes_answers,
    "intermediate_size": _dense_width,
    "rms_norm_eps": _changes_answers,
    "use_cache": _fixed(Effect.INERT, "use_cache"),
    "output_router_logits": _fixed(Effect.INERT, "output_router_logits"),
    "tie_word_embeddings": _impossible,
    "torch_dtype": _impossible,
}
