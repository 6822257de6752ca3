"""What a growth does to a model: the judges of fields that need new weights."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from veche.core.units import format_bytes
from veche.planning.accounting import flops_per_token
from veche.planning.depth import copied_layers, deeper
from veche.planning.feasibility import (
    require_feasible_experts,
    require_feasible_untie,
    require_growth,
    require_layers,
)
from veche.planning.kv_cache import kv_bytes_per_token
from veche.planning.plan import Effect
from veche.planning.verdict import Case, Verdict

_DTYPE = "bfloat16"
_BYTES = 2


def grows_experts(case: Case) -> Verdict:
    """Judge m copies of every expert."""
    base, times = case.base, case.after // case.before
    after = replace(
        base, num_experts=case.after, num_experts_per_tok=base.num_experts_per_tok * times
    )
    require_feasible_experts(base, after)
    verdict = _exact(case, "experts", times=times, top_k=after.num_experts_per_tok)
    return _with_note(verdict, case, "split_experts")


def grows_expert_width(case: Case) -> Verdict:
    """Judge wider experts."""
    _require_growth(case)
    return _exact(case, "expert_width", growth=case.after / case.before - 1, **_start(case))


def grows_shared_expert_width(case: Case) -> Verdict:
    """Judge a wider shared expert."""
    _require_growth(case)
    return _exact(case, "shared_expert_width", **_start(case))


def grows_dense_width(case: Case) -> Verdict:
    """Judge wider MLPs of layers without experts; nobody reads the width where there are none."""
    base = case.base
    num_dense = base.num_hidden_layers - base.num_sparse_layers
    if not num_dense:
        reason = case.say(
            "dense_width_inert", step=base.decoder_sparse_step, layers=list(base.mlp_only_layers)
        )
        return Verdict(effect=Effect.INERT, reason=reason)
    _require_growth(case)
    return _exact(case, "dense_width", layers=num_dense, **_start(case))


def grows_query_heads(case: Case) -> Verdict:
    """Judge more query heads."""
    _require_growth(case)
    return _exact(case, "query_heads", **_start(case))


def grows_kv_heads(case: Case) -> Verdict:
    """Judge more key/value heads."""
    _require_growth(case)
    return _exact(case, "kv_heads", ratio=case.after / case.before, **_kv_cache(case))


def grows_depth(case: Case) -> Verdict:
    """Judge more layers."""
    _require_growth(case)
    require_layers(case.after)
    flops = flops_per_token(deeper(case.base, case.after)) / flops_per_token(case.base)
    layers = copied_layers(case.before, case.after)
    return of_copies(case, _exact(case, "depth", layers=layers, flops=flops, **_kv_cache(case)))


def unties(case: Case) -> Verdict:
    """Judge an output layer of its own."""
    require_feasible_untie(case.base, replace(case.base, tie_word_embeddings=case.after))
    size = format_bytes(_BYTES * case.base.vocab_size * case.base.hidden_size, case.language)
    return of_copies(case, _exact(case, "untie", size=size, dtype=_DTYPE))


def of_copies(case: Case, verdict: Verdict) -> Verdict:
    """Add that the mode does not matter, where it could be thought to."""
    return _with_note(verdict, case, "start_copies")


def _with_note(verdict: Verdict, case: Case, key: str) -> Verdict:
    """Add what there is to say of mode split."""
    if case.mode != "split":
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; {case.say(key)}")


def _exact(case: Case, key: str, **values: object) -> Verdict:
    return Verdict(effect=Effect.EXACT, reason=case.say(key, **values))


def _start(case: Case) -> dict[str, str]:
    """Say how new units start."""
    return {"start": case.say(f"start_{case.mode}")}


def _kv_cache(case: Case) -> dict[str, str]:
    """Return the KV cache of a token, before and after it grows with the field."""
    before = kv_bytes_per_token(case.base, _DTYPE)
    return {
        "kv_before": format_bytes(before, case.language),
        "kv_after": format_bytes(before * case.after // case.before, case.language),
        "dtype": _DTYPE,
    }


def _require_growth(case: Case) -> None:
    require_growth(case.name, case.before, case.after, case.base.model_type)


GROWTHS: Mapping[str, Callable[[Case], Verdict]] = {
    "num_experts": grows_experts,
    "moe_intermediate_size": grows_expert_width,
    "shared_expert_intermediate_size": grows_shared_expert_width,
    "num_attention_heads": grows_query_heads,
    "num_key_value_heads": grows_kv_heads,
    "num_hidden_layers": grows_depth,
    "intermediate_size": grows_dense_width,
    "tie_word_embeddings": unties,
}
"""Field → who judges its growth."""
