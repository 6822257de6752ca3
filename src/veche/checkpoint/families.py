"""The model families that veche knows, and how each spells its config and its tensors."""

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum

from veche.core.errors import ConfigError, UnsupportedError


class QkNorm(StrEnum):
    """What a family normalises queries and keys over."""

    NONE = "none"
    HEAD = "head"
    """One weight of head_dim, shared by all heads (Qwen3): heads can be added freely."""
    FLAT = "flat"
    """One RMS over all heads together (OLMoE): adding heads changes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is fixed by a model_type.

    Attributes:
        model_type: as in config.json.
        architecture: the class in transformers.
        expert_width_key: config key of an expert's hidden units; None for dense families.
        expert_count_key: config key of the number of experts that the family's publisher writes.
        expert_names: tensor names of an expert's gate, up and down projections.
        moe_block: name of the MoE module inside a layer.
        qk_norm: see QkNorm.
        has_qkv_bias: whether q, k and v projections have biases.
        bias_key: config key that says otherwise; None where the class reads none.
        default_norm_topk_prob: meaning of a config without norm_topk_prob; None where the family
            always normalises and has no such key.
        mixture_type: model_type that a mixture of copies of a dense model has; None for mixtures.
        default_num_key_value_heads: meaning of a config without that key; None stands for
            num_attention_heads.
        default_head_dim: the same; None stands for hidden_size over num_attention_heads.
        default_max_position_embeddings: the same.
        default_rope_theta: the same.
        default_rms_norm_eps: the same.
        default_shared_width: the same for shared_expert_intermediate_size; None where the family
            has no shared expert.
        nullable: keys that may be null, which is num_attention_heads for the key/value heads and
            hidden_size over num_attention_heads for head_dim. (Elsewhere transformers fails.)

    Defaults are those of the config classes of transformers 5.23.
    """

    model_type: str
    architecture: str
    expert_width_key: str | None = None
    expert_count_key: str = "num_experts"
    expert_names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    moe_block: str = "mlp"
    qk_norm: QkNorm = QkNorm.NONE
    has_qkv_bias: bool = False
    bias_key: str | None = "attention_bias"
    default_norm_topk_prob: bool | None = None
    mixture_type: str | None = None
    default_num_key_value_heads: int | None = None
    default_head_dim: int | None = None
    default_max_position_embeddings: int = 32_768
    default_rope_theta: float = 10_000.0
    default_rms_norm_eps: float = 1e-6
    default_shared_width: int | None = None
    nullable: frozenset[str] = frozenset()

    @property
    def has_shared_expert(self) -> bool:
        """Whether every token passes one more expert beside the chosen ones."""
        return self.default_shared_width is not None

    @property
    def is_moe(self) -> bool:
        """Whether it has experts."""
        return self.expert_width_key is not None


_KV_HEADS = "num_key_value_heads"
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            model_type="qwen3_moe",
            architecture="Qwen3MoeForCausalLM",
            expert_width_key="moe_intermediate_size",
            qk_norm=QkNorm.HEAD,
            default_norm_topk_prob=False,
            default_num_key_value_heads=4,
        ),
        Family(
            model_type="qwen2_moe",
            architecture="Qwen2MoeForCausalLM",
            expert_width_key="moe_intermediate_size",
            has_qkv_bias=True,
            bias_key="qkv_bias",
            default_norm_topk_prob=False,
            default_num_key_value_heads=16,
            default_shared_width=5632,
        ),
        Family(
            model_type="mixtral",
            architecture="MixtralForCausalLM",
            expert_width_key="intermediate_size",
            expert_count_key="num_local_experts",
            expert_names=("w1", "w3", "w2"),
            moe_block="block_sparse_moe",
            bias_key=None,
            default_num_key_value_heads=8,
            default_max_position_embeddings=131_072,
            default_rope_theta=1_000_000.0,
            default_rms_norm_eps=1e-5,
            nullable=frozenset({_KV_HEADS, "head_dim"}),
        ),
        Family(
            model_type="olmoe",
            architecture="OlmoeForCausalLM",
            expert_width_key="intermediate_size",
            qk_norm=QkNorm.FLAT,
            default_norm_topk_prob=False,
            default_max_position_embeddings=4096,
            default_rms_norm_eps=1e-5,
            nullable=frozenset({_KV_HEADS}),
        ),
        Family(
            model_type="llama",
            mixture_type="mixtral",
            architecture="LlamaForCausalLM",
            default_max_position_embeddings=2048,
            nullable=frozenset({_KV_HEADS, "head_dim"}),
        ),
        Family(
            model_type="qwen2",
            mixture_type="qwen2_moe",
            architecture="Qwen2ForCausalLM",
            has_qkv_bias=True,
            bias_key=None,
            default_num_key_value_heads=32,
            nullable=frozenset({_KV_HEADS}),
        ),
        Family(
            model_type="qwen3",
            mixture_type="qwen3_moe",
            architecture="Qwen3ForCausalLM",
            qk_norm=QkNorm.HEAD,
            default_num_key_value_heads=32,
            default_head_dim=128,
            nullable=frozenset({_KV_HEADS}),
        ),
    )
}


def family_of(model_type: object) -> Family:
    """Return the family of a config's model_type.

    Raises:
        ConfigError: there is none given.
        UnsupportedError: veche does not know it; the nearest known one is named.
    """
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(
            f"model_type is {model_type!r}, so the model's family is unknown",
            hint=f"give one of: {', '.join(FAMILIES)}",
        )
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(model_type, FAMILIES, n=1)
        raise UnsupportedError(
            f"model_type {model_type!r} is not a family that veche knows",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(FAMILIES)}",
        )
    return FAMILIES[model_type]


class TensorKind(StrEnum):
    """What a tensor does in the network."""

    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"
    NORM = "norm"
    Q = "q_proj"
    K = "k_proj"
    V = "v_proj"
    O = "o_proj"  # noqa: E741 - the field's name for it
    Q_BIAS = "q_bias"
    K_BIAS = "k_bias"
    V_BIAS = "v_bias"
    O_BIAS = "o_bias"
    QK_NORM = "qk_norm"
    ROUTER = "router"
    EXPERT_GATE = "expert_gate"
    EXPERT_UP = "expert_up"
    EXPERT_DOWN = "expert_down"
    FUSED_GATE_UP = "fused_gate_up"
    FUSED_DOWN = "fused_down"
    SHARED_GATE = "shared_expert.gate_proj"
    SHARED_UP = "shared_expert.up_proj"
    SHARED_DOWN = "shared_expert.down_proj"
    SHARED_ROUTER = "shared_expert_gate"
    DENSE_GATE = "mlp.gate_proj"
    DENSE_UP = "mlp.up_proj"
    DENSE_DOWN = "mlp.down_proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRole:
    """A tensor's place.

    Attributes:
        kind: what it does.
        template: its name, with "{layer}" and "{expert}" where these numbers stand.
        layer: from 0; None outside the layers.
        expert: from 0; None where the tensor is not of one expert.
    """

    kind: TensorKind
    template: str
    layer: int | None = None
    expert: int | None = None

    @property
    def name(self) -> str:
        """Its key in the checkpoint."""
        return self.template.format(layer=self.layer, expert=self.expert)


_OUTSIDE_LAYERS = {
    "model.embed_tokens.weight": TensorKind.EMBEDDING,
    "lm_head.weight": TensorKind.LM_HEAD,
    "model.norm.weight": TensorKind.NORM,
}
_IN_LAYER = {
    "self_attn.q_proj.weight": TensorKind.Q,
    "self_attn.k_proj.weight": TensorKind.K,
    "self_attn.v_proj.weight": TensorKind.V,
    "self_attn.o_proj.weight": TensorKind.O,
    "self_attn.q_proj.bias": TensorKind.Q_BIAS,
    "self_attn.k_proj.bias": TensorKind.K_BIAS,
    "self_attn.v_proj.bias": TensorKind.V_BIAS,
    "self_attn.o_proj.bias": TensorKind.O_BIAS,
    "self_attn.q_norm.weight": TensorKind.QK_NORM,
    "self_attn.k_norm.weight": TensorKind.QK_NORM,
    "input_layernorm.weight": TensorKind.NORM,
    "post_attention_layernorm.weight": TensorKind.NORM,
    "mlp.gate_proj.weight": TensorKind.DENSE_GATE,
    "mlp.up_proj.weight": TensorKind.DENSE_UP,
    "mlp.down_proj.weight": TensorKind.DENSE_DOWN,
}
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.(.+)")
_EXPERT = re.compile(r"experts\.(0|[1-9][0-9]{0,6})\.(\w+)\.weight")
_LAYER_PREFIX = "model.layers.{layer}."
_IN_MOE_BLOCK = {
    TensorKind.ROUTER: "gate.weight",
    TensorKind.FUSED_GATE_UP: "experts.gate_up_proj",
    TensorKind.FUSED_DOWN: "experts.down_proj",
    TensorKind.SHARED_GATE: "shared_expert.gate_proj.weight",
    TensorKind.SHARED_UP: "shared_expert.up_proj.weight",
    TensorKind.SHARED_DOWN: "shared_expert.down_proj.weight",
    TensorKind.SHARED_ROUTER: "shared_expert_gate.weight",
}
_EXPERT_KINDS = (TensorKind.EXPERT_GATE, TensorKind.EXPERT_UP, TensorKind.EXPERT_DOWN)


def role_of(name: str, family: Family) -> TensorRole | None:
    """Return what the tensor `name` does in a model of `family`; None if it is not known."""
    if name in _OUTSIDE_LAYERS:
        return TensorRole(kind=_OUTSIDE_LAYERS[name], template=name)
    if not (match := _LAYER.fullmatch(name)):
        return None
    layer, rest = int(match[1]), match[2]
    if rest in _IN_LAYER:
        return TensorRole(kind=_IN_LAYER[rest], template=f"{_LAYER_PREFIX}{rest}", layer=layer)
    if not family.is_moe or not rest.startswith(family.moe_block + "."):
        return None
    return _role_in_moe_block(rest.removeprefix(family.moe_block + "."), family, layer)


def moe_role(kind: TensorKind, family: Family, layer: int, expert: int | None = None) -> TensorRole:
    """Return the place of a tensor of a layer's mixture, one tensor for each expert."""
    rest = _IN_MOE_BLOCK.get(kind)
    if rest is None:
        projection = family.expert_names[_EXPERT_KINDS.index(kind)]
        rest = f"experts.{{expert}}.{projection}.weight"
    template = f"{_LAYER_PREFIX}{family.moe_block}.{rest}"
    return TensorRole(kind=kind, template=template, layer=layer, expert=expert)


def _role_in_moe_block(rest: str, family: Family, layer: int) -> TensorRole | None:
    for kind, name in _IN_MOE_BLOCK.items():
        if rest == name:
            return moe_role(kind, family, layer)
    if (match := _EXPERT.fullmatch(rest)) and match[2] in family.expert_names:
        kind = _EXPERT_KINDS[family.expert_names.index(match[2])]
        return moe_role(kind, family, layer, int(match[1]))
    return None
