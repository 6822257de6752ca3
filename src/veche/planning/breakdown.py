"""Where a model's parameters, bytes and FLOPs are: by group, data type and context length."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.spec import ModelSpec
from veche.planning.accounting import (
    FLOPS_CONTEXT_TOKENS,
    active_groups,
    attention_score_flops,
    parameter_groups,
)
from veche.planning.kv_cache import kv_bytes_per_token
from veche.planning.quantization import QUANTIZATIONS, weights_by_kind
from veche.planning.tensor_parallel import feasible_fp8_tensor_parallel, feasible_tensor_parallel
from veche.planning.tensors import DENSE_KINDS, SHARED_KINDS

SHOWN_KV_DTYPES = ("bf16", "fp8", "q8_0", "q4_0")
SHOWN_CONTEXTS = (4096, 32_768, 131_072)
GROUP_OF: Mapping[Kind, str] = {
    Kind.EMBEDDING: "embeddings",
    Kind.LM_HEAD: "embeddings",
    Kind.NORM: "norms",
    Kind.ROUTER: "router",
    **dict.fromkeys(SHARED_KINDS, "shared_experts"),
    **dict.fromkeys(DENSE_KINDS, "dense_mlp"),
    **dict.fromkeys(
        (Kind.Q, Kind.K, Kind.V, Kind.O, Kind.Q_BIAS, Kind.K_BIAS, Kind.V_BIAS, Kind.QK_NORM),
        "attention",
    ),
    **dict.fromkeys((Kind.EXPERT_GATE, Kind.EXPERT_UP, Kind.EXPERT_DOWN), "experts"),
}
"""Kind of a tensor → field of `ParameterGroups`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """What a model costs, taken apart. Groups are the fields of `ParameterGroups`.

    Attributes:
        parameters: by group.
        active_parameters: those that one token passes through, by group.
        weight_bytes: by quantisation (as in planning/quantization.py), then by group.
        kv_bytes_per_token: keys and values of one token, by data type of the cache.
        kv_bytes: of a whole sequence, by data type, then by tokens.
        flops_per_token: of decoding one token, by tokens before it, then by group;
            "attention_scores" is what grows with the context.
        tensor_parallel: numbers of cards that can share its heads.
        fp8_block_tensor_parallel: those of them that can also share its FP8 blocks of 128.
    """

    parameters: dict[str, int]
    active_parameters: dict[str, int]
    weight_bytes: dict[str, dict[str, int]]
    kv_bytes_per_token: dict[str, int]
    kv_bytes: dict[str, dict[int, int]]
    flops_per_token: dict[int, dict[str, int]]
    tensor_parallel: tuple[int, ...]
    fp8_block_tensor_parallel: tuple[int, ...]


def breakdown_of(spec: ModelSpec) -> Breakdown:
    """Take the costs of `spec` apart."""
    contexts = sorted({*SHOWN_CONTEXTS, spec.position_limit})
    kv_each = {dtype: kv_bytes_per_token(spec, dtype) for dtype in SHOWN_KV_DTYPES}
    return Breakdown(
        parameters=_present(asdict(parameter_groups(spec))),
        active_parameters=_present(asdict(active_groups(spec))),
        weight_bytes={name: weight_bytes_by_group(spec, name) for name in QUANTIZATIONS},
        kv_bytes_per_token=kv_each,
        kv_bytes={
            dtype: {tokens: tokens * each for tokens in contexts} for dtype, each in kv_each.items()
        },
        flops_per_token={
            tokens: flops_by_group(spec, tokens)
            for tokens in sorted({FLOPS_CONTEXT_TOKENS, *contexts})
        },
        tensor_parallel=feasible_tensor_parallel(spec),
        fp8_block_tensor_parallel=feasible_fp8_tensor_parallel(spec),
    )


def weight_bytes_by_group(spec: ModelSpec, quantization: str) -> dict[str, int]:
    """Return the bytes of the weights in a quantisation, by group; empty groups are left out."""
    groups: dict[str, int] = {}
    for kind, num_bytes in weights_by_kind(spec, quantization).items():
        group = GROUP_OF[kind]
        groups[group] = groups.get(group, 0) + num_bytes
    return groups


def flops_by_group(spec: ModelSpec, context_tokens: int) -> dict[str, int]:
    """Return the FLOPs of decoding one token behind `context_tokens` others, by group.

    Adds up to `accounting.flops_per_token`.
    """
    groups = {name: 2 * count for name, count in _present(asdict(active_groups(spec))).items()}
    return {**groups, "attention_scores": attention_score_flops(spec, context_tokens)}


def _present(groups: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in groups.items() if count}
