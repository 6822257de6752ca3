"""What changing a field does to a model: its effect class, and why.

Most fields do what field_facts.json says of them. Judged here are those whose effect depends on the
values: what can grow, and what a growth costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import RecipeError
from veche.core.language import Language
from veche.core.units import format_bytes
from veche.planning.field_facts import FieldFact, fact_of
from veche.planning.kv_cache import kv_bytes_per_token
from veche.planning.phrases import phrase
from veche.planning.plan import Effect, Mode

GROWING_FIELDS = ("moe_intermediate_size", "num_attention_heads", "num_key_value_heads")
"""Fields whose growth has an exact operation."""


_OWN_WORDS = ("attention_dropout", "router_aux_loss_coef", "output_router_logits")
"""Fields of which a plan has more to say than the table: a phrase of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The effect of one change."""

    effect: Effect
    reason: str
    is_lossy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change to be judged: field `name`, `key` in config.json, goes from `before` to `after`."""

    name: str
    key: str
    before: Any
    after: Any
    base: ModelSpec
    mode: Mode
    language: Language

    @property
    def fact(self) -> FieldFact | None:
        """What the field does in the base's family."""
        return fact_of(self.key, self.base.model_type)

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
    return _JUDGES.get(case.name, _by_fact)(case)


def _by_fact(case: Case) -> Verdict:
    """Judge by the table: inert, training only, config only, or not to be had."""
    fact = case.fact
    if fact is None:
        raise RecipeError(
            f"{case.name}: a {case.base.model_type} model has no such field",
            hint="leave it out of the recipe; what each family has: docs/reference/fields.md",
        )
    if fact.effect in ("needs_weights", "exact"):
        raise _impossible(case)
    effect = Effect(fact.effect)
    has_own_words = case.name in _OWN_WORDS
    reason = case.say(case.name) if has_own_words else _as_clause(fact.reason(case.language))
    return Verdict(effect=effect, is_lossy=fact.is_lossy, reason=reason)


def _as_clause(sentence: str) -> str:
    """Return a sentence as it stands within another: no capital, no full stop at its end."""
    is_word = sentence[1:2].islower() or sentence[1:2] == " "
    return (sentence[:1].lower() if is_word else sentence[:1]) + sentence[1:].removesuffix(".")


def _top_k(case: Case) -> Verdict:
    if case.after > case.base.num_experts:
        raise RecipeError(
            f"num_experts_per_tok {case.after} is more than the {case.base.num_experts} experts",
            hint=f"at most --set num_experts_per_tok={case.base.num_experts}",
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
    kv_before = kv_bytes_per_token(case.base, "bfloat16")
    kv_after = kv_before * case.after // case.before
    reason = case.say(
        "kv_heads",
        ratio=case.after / case.before,
        kv_before=format_bytes(kv_before, case.language),
        kv_after=format_bytes(kv_after, case.language),
        dtype="bfloat16",
    )
    return Verdict(effect=Effect.EXACT, reason=reason)


def _dense_width(case: Case) -> Verdict:
    base = case.base
    if base.num_sparse_layers < base.num_hidden_layers:
        raise _impossible(case)
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
            hint=f"veche only grows: leave it with --set {case.name}={case.before}, or prune with "
            "a tool that retrains",
        )


def _impossible(case: Case) -> RecipeError:
    fact = case.fact
    why = f": {fact.reason(case.language)}" if fact else ""
    return RecipeError(
        f"{case.name}: {case.before} → {case.after} needs an operation that this version of veche "
        f"does not have{why}",
        hint=f"leave it with --set {case.name}={case.before}; "
        f"veche can grow: {', '.join(GROWING_FIELDS)}",
    )


_JUDGES: Mapping[str, Callable[[Case], Verdict]] = {
    "num_experts_per_tok": _top_k,
    "moe_intermediate_size": _expert_width,
    "num_attention_heads": _query_heads,
    "num_key_value_heads": _kv_heads,
    "intermediate_size": _dense_width,
}
