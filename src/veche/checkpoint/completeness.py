"""Whether a checkpoint has every tensor that its config.json implies, and each once."""

from collections.abc import Collection, Container, Iterator

from veche.checkpoint.families import QkNorm, TensorKind, moe_role, role_of
from veche.checkpoint.spec import ModelSpec

_EXPERT = (TensorKind.EXPERT_GATE, TensorKind.EXPERT_UP, TensorKind.EXPERT_DOWN)
_FUSED = (TensorKind.FUSED_GATE_UP, TensorKind.FUSED_DOWN)
_SHARED = (
    TensorKind.SHARED_GATE,
    TensorKind.SHARED_UP,
    TensorKind.SHARED_DOWN,
    TensorKind.SHARED_ROUTER,
)


def missing_tensor(spec: ModelSpec, names: Container[str]) -> str | None:
    """Return the first tensor that a model of `spec` needs and `names` lack; None if it is whole.

    The work is bounded by the tensors that are there, whatever sizes the config claims.
    """
    return next((name for name in _needed(spec, names) if name not in names), None)


def doubled_tensor(spec: ModelSpec, names: Collection[str]) -> str | None:
    """Return a tensor of one expert in a layer that has its experts fused too; None without one."""
    fused = {
        layer
        for layer in range(spec.num_hidden_layers)
        if any(moe_role(kind, spec.family, layer).name in names for kind in _FUSED)
    }
    if not fused:
        return None
    for name in names:
        role = role_of(name, spec.family)
        if role and role.expert is not None and role.layer in fused:
            return name
    return None


def _needed(spec: ModelSpec, names: Container[str]) -> Iterator[str]:
    yield "model.embed_tokens.weight"
    yield "model.norm.weight"
    if not spec.tie_word_embeddings:
        yield "lm_head.weight"
    for layer in range(spec.num_hidden_layers):
        place = f"model.layers.{layer}."
        yield from (place + rest for rest in _around_mlp(spec))
        if spec.is_sparse_layer(layer):
            yield from _mixture(spec, layer, names)
        else:
            yield from (f"{place}mlp.{part}_proj.weight" for part in ("gate", "up", "down"))


def _around_mlp(spec: ModelSpec) -> Iterator[str]:
    yield from ("input_layernorm.weight", "post_attention_layernorm.weight")
    yield from (f"self_attn.{part}_proj.weight" for part in "qkvo")
    if spec.has_attention_bias:
        yield from (f"self_attn.{part}_proj.bias" for part in "qkv")
    if spec.family.qk_norm is not QkNorm.NONE:
        yield from (f"self_attn.{part}_norm.weight" for part in "qk")


def _mixture(spec: ModelSpec, layer: int, names: Container[str]) -> Iterator[str]:
    """Yield a layer's router and experts, fused where one of the two fused tensors is there."""
    yield moe_role(TensorKind.ROUTER, spec.family, layer).name
    fused = [moe_role(kind, spec.family, layer).name for kind in _FUSED]
    if any(name in names for name in fused):
        yield from fused
    else:
        for expert in range(spec.num_experts):
            yield from (moe_role(kind, spec.family, layer, expert).name for kind in _EXPERT)
    if spec.shared_expert_intermediate_size:
        yield from (moe_role(kind, spec.family, layer).name for kind in _SHARED)
