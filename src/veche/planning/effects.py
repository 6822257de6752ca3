"""What changing a field does to a model: its effect class, and why.

Most fields do what field_facts.json says of them. Top-k is judged here, and what can grow in
planning/growth.py: their effects depend on the values.
"""

from veche.core.errors import RecipeError
from veche.planning.growth import GROWTHS, of_copies
from veche.planning.plan import Effect
from veche.planning.verdict import Case, Verdict

_OWN_WORDS = ("attention_dropout", "router_aux_loss_coef", "output_router_logits")
"""Fields of which a plan has more to say than the table: a phrase of that name."""

_COPIES_ARE_TOLD = (
    "model_type", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
    "shared_expert_intermediate_size", "intermediate_size",
)  # fmt: skip
_FOLLOW_DEPTH = ("mlp_only_layers", "decoder_sparse_step", "layer_types")


def judge(case: Case) -> Verdict:
    """Return what the change does.

    Raises:
        RecipeError: no operation of this version can make it.
    """
    if case.name == "num_experts_per_tok":
        return _top_k(case)
    if case.before == case.after:
        return Verdict(effect=Effect.UNCHANGED, reason=case.say("unchanged"))
    if case.name in GROWTHS and _has_part(case):
        return GROWTHS[case.name](case)
    return _by_fact(case)


def judge_copies(case: Case) -> Verdict:
    """Return what it does that a dense model becomes a mixture of copies, for one field."""
    if case.name not in _COPIES_ARE_TOLD:
        return _by_fact(case)
    verdict = Verdict(effect=Effect.EXACT, reason=case.say(f"copies_{case.name}"))
    return of_copies(case, verdict) if case.name == "num_experts" else verdict


def judge_follower(case: Case) -> Verdict:
    """Return what a key does that says something of each layer, in a deeper model."""
    return Verdict(effect=Effect.EXACT, reason=case.say("follows_depth"))


def _has_part(case: Case) -> bool:
    """Whether the base's family has what the field measures; the table tells of the others."""
    fact = case.fact
    return case.name == "intermediate_size" or (
        fact is not None and fact.effect in ("needs_weights", "exact")
    )


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
    """Judge the number of experts that a token visits, beside the number that there will be."""
    if case.after > case.num_experts:
        raise RecipeError(
            f"num_experts_per_tok {case.after} is more than the {case.num_experts} experts",
            hint=f"at most --set num_experts_per_tok={case.num_experts}",
        )
    exact = case.exact_top_k
    is_left_alone = case.before == case.after and not case.is_chosen
    if is_left_alone or case.before == case.after == exact:
        return Verdict(effect=Effect.UNCHANGED, reason=case.say("unchanged"))
    if case.after == exact:
        return Verdict(effect=Effect.EXACT, reason=case.say("top_k_times"))
    reason = case.say("top_k" if exact == case.before else "top_k_of_copies", exact=exact)
    if case.base.has_equal_routing_weights:
        reason += "; " + case.say("top_k_gain", before=exact)
    return Verdict(effect=Effect.CONFIG_ONLY, is_lossy=True, reason=reason)


def _impossible(case: Case) -> RecipeError:
    fact = case.fact
    why = f": {fact.reason(case.language)}" if fact else ""
    return RecipeError(
        f"{case.name}: {case.before} → {case.after} needs an operation that this version of veche "
        f"does not have{why}",
        hint=f"leave it with --set {case.name}={case.before}; veche can grow: {', '.join(GROWTHS)}",
    )
