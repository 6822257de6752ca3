"""Parameters, bytes, KV cache and FLOPs of a model, in closed form from its ModelSpec.

Agrees with transformers' own models on the meta device (tests/planning/test_accounting.py).
A dtype that is none of the three below counts as bfloat16.
"""

from dataclasses import dataclass, replace

from veche.checkpoint.families import QkNorm
from veche.checkpoint.spec import ModelSpec
from veche.planning.kv_cache import kv_bytes_per_token

_BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOPS_CONTEXT_TOKENS = 4096
"""Position at which flops_per_token is stated, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroups:
    """Number of parameters by what they are for.

    Attributes:
        embeddings: input embedding, and the output head when it is not tied.
        attention: q, k, v, o projections with their biases and norms.
        experts: all experts' projections.
        shared_experts: experts that every token passes, with their gates.
        router: the routers.
        dense_mlp: MLP blocks of layers without experts.
        norms: layer norms and the final norm.
    """

    embeddings: int
    attention: int
    experts: int
    shared_experts: int
    router: int
    dense_mlp: int
    norms: int

    @property
    def total(self) -> int:
        """Sum of all groups."""
        return (
            self.embeddings + self.attention + self.experts + self.shared_experts
            + self.router + self.dense_mlp + self.norms
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a model costs.

    Attributes:
        parameters: all of them.
        active_parameters: those that one token passes through; the input embedding is a look-up
            and does not count, the output head does.
        weight_bytes: in the config's dtype.
        kv_bytes_per_token: keys and values of one token in all layers, in the config's dtype.
        flops_per_token: of decoding one token behind `flops_context_tokens` others.
        flops_context_tokens: see there.
    """

    parameters: int
    active_parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    flops_per_token: int
    flops_context_tokens: int = FLOPS_CONTEXT_TOKENS


def parameter_groups(spec: ModelSpec) -> ParameterGroups:
    """Count the parameters of `spec`, group by group."""
    hidden, sparse = spec.hidden_size, spec.num_sparse_layers
    shared = spec.shared_expert_intermediate_size
    return ParameterGroups(
        embeddings=spec.vocab_size * hidden * (1 if spec.tie_word_embeddings else 2),
        attention=spec.num_hidden_layers * _attention_parameters(spec),
        experts=sparse * spec.num_experts * _expert_parameters(spec),
        shared_experts=sparse * (3 * hidden * shared + hidden) if shared else 0,
        router=sparse * spec.num_experts * hidden,
        dense_mlp=(spec.num_hidden_layers - sparse) * 3 * hidden * (spec.intermediate_size or 0),
        norms=(2 * spec.num_hidden_layers + 1) * hidden,
    )


def active_groups(spec: ModelSpec) -> ParameterGroups:
    """Count the parameters that one token passes: k experts of each layer, all of the rest.

    An untied input embedding is a look-up and does not count; the output head does. Model cards
    often count both: Qwen's 3.3 B for Qwen3-30B-A3B is this 3.04 B and the input embedding.
    """
    groups = parameter_groups(spec)
    input_embedding = 0 if spec.tie_word_embeddings else spec.vocab_size * spec.hidden_size
    idle_experts = spec.num_experts - spec.num_experts_per_tok
    return replace(
        groups,
        embeddings=groups.embeddings - input_embedding,
        experts=groups.experts - spec.num_sparse_layers * idle_experts * _expert_parameters(spec),
    )


def active_parameters(spec: ModelSpec) -> int:
    """Return the sum of `active_groups`."""
    return active_groups(spec).total


def attention_score_flops(spec: ModelSpec, context_tokens: int) -> int:
    """Return 4 · context · n_q · head_dim a layer: Q·Kᵀ and P·V of one token."""
    return 4 * context_tokens * spec.q_size * spec.num_hidden_layers


def flops_per_token(spec: ModelSpec, context_tokens: int = FLOPS_CONTEXT_TOKENS) -> int:
    """Return the floating point operations of decoding one token.

    2 for each active parameter (a multiplication and an addition), and the attention scores.
    Source: PaLM, arXiv 2204.02311, App. B, without the backward pass.
    """
    return 2 * active_parameters(spec) + attention_score_flops(spec, context_tokens)


def costs_of(spec: ModelSpec) -> Costs:
    """Return what `spec` costs in its own dtype."""
    dtype = spec.torch_dtype if spec.torch_dtype in _BYTES_PER_VALUE else "bfloat16"
    total = parameter_groups(spec).total
    return Costs(
        parameters=total,
        active_parameters=active_parameters(spec),
        weight_bytes=total * _BYTES_PER_VALUE[dtype],
        kv_bytes_per_token=kv_bytes_per_token(spec, dtype),
        flops_per_token=flops_per_token(spec),
    )


def _attention_parameters(spec: ModelSpec) -> int:
    hidden, q_size, kv_size = spec.hidden_size, spec.q_size, spec.kv_size
    weights = hidden * (q_size + 2 * kv_size) + q_size * hidden
    bias = (q_size + 2 * kv_size) if spec.has_attention_bias else 0
    output_bias = hidden if spec.has_attention_bias and not spec.family.has_qkv_bias else 0
    norm = {
        QkNorm.NONE: 0,
        QkNorm.HEAD: 2 * spec.head_dim,
        QkNorm.FLAT: q_size + kv_size,
    }[spec.family.qk_norm]
    return weights + bias + output_bias + norm


def _expert_parameters(spec: ModelSpec) -> int:
    return 3 * spec.hidden_size * (spec.moe_intermediate_size or 0)
