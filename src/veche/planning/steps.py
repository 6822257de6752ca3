"""From base to target one operation at a time, so that each sees nothing but its own change."""

from dataclasses import dataclass, replace

from veche.checkpoint.spec import ModelSpec

_FIELDS_OF: dict[str, tuple[str, ...]] = {
    "depth": ("num_hidden_layers", "mlp_only_layers", "decoder_sparse_step"),
    "untie": ("tie_word_embeddings",),
    "attention_heads": ("num_attention_heads", "num_key_value_heads"),
    "expert_width": ("moe_intermediate_size",),
    "shared_expert_width": ("shared_expert_intermediate_size",),
    "dense_width": ("intermediate_size",),
}
"""Fields of ModelSpec that an operation takes from the target, in the order of execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation: the model before it, and after it."""

    operation: str
    before: ModelSpec
    after: ModelSpec


def steps_of(base: ModelSpec, target: ModelSpec) -> tuple[Step, ...]:
    """Name the operations that lead from one spec to the other, in the order of execution.

    NOTE: a step's `after` is the next one's `before`; the last `after` differs from `target` only
    in fields that move no weight (dials: rope, or top-k where routing weights are not equal).
    """
    steps: list[Step] = []

    def take(operation: str, after: ModelSpec) -> None:
        before = steps[-1].after if steps else base
        if after != before:
            steps.append(Step(operation=operation, before=before, after=after))

    now = base
    if target.is_moe and not base.is_moe:
        now = _upcycled(base, target)
        take("upcycle", now)
    if target.num_experts != now.num_experts:
        now = _multiplied(now, target)
        take("experts", now)
    for operation, fields in _FIELDS_OF.items():
        if operation == "dense_width" and now.num_sparse_layers == now.num_hidden_layers:
            continue
        now = replace(now, **{field: getattr(target, field) for field in fields})
        take(operation, now)
    if now.has_equal_routing_weights:
        take("expert_gain", replace(now, num_experts_per_tok=target.num_experts_per_tok))
    return tuple(steps)


def exact_top_k(base: ModelSpec, target: ModelSpec) -> int:
    """Return the top-k with which the grown model is the base: k, or m·k with m times the experts.

    For an upcycled model, whose experts are alike, it is the target's own.
    """
    if not base.is_moe:
        return target.num_experts_per_tok
    return base.num_experts_per_tok * (target.num_experts // base.num_experts)


def _upcycled(base: ModelSpec, target: ModelSpec) -> ModelSpec:
    """Return the base as a mixture whose experts are as wide as its dense layers were."""
    return replace(
        base,
        model_type=target.model_type,
        num_experts=target.num_experts,
        num_experts_per_tok=target.num_experts_per_tok,
        norm_topk_prob=target.norm_topk_prob,
        moe_intermediate_size=base.intermediate_size,
        shared_expert_intermediate_size=target.shared_expert_intermediate_size,
        intermediate_size=target.intermediate_size,
        router_aux_loss_coef=target.router_aux_loss_coef,
    )


def _multiplied(now: ModelSpec, target: ModelSpec) -> ModelSpec:
    """Return `now` with m times the experts and m times the top-k, which is what is exact."""
    times = target.num_experts // now.num_experts
    return replace(
        now,
        num_experts=target.num_experts,
        num_experts_per_tok=now.num_experts_per_tok * times,
    )
