"""config.json → ModelSpec, from the spelling of transformers 4 or 5."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.checkpoint.families import Family, family_of
from veche.checkpoint.layers import MAX_LAYERS
from veche.checkpoint.spec import ModelSpec, RopeSpec
from veche.core.errors import ConfigError, UnsupportedError, VecheError
from veche.core.files import read_json_object

_Count = Annotated[int, Field(gt=0, le=2**31, strict=True)]
_DEFAULT_THETA = 10_000.0


class _Rope(BaseModel):
    """rope_scaling (transformers 4) or rope_parameters (transformers 5)."""

    model_config = ConfigDict(extra="ignore")

    rope_theta: float | None = Field(None, gt=0)
    rope_type: str | None = None
    type: str | None = None
    factor: float | None = Field(None, gt=0)
    original_max_position_embeddings: _Count | None = None


class _Config(BaseModel):
    """The keys of a config.json that veche reads; all others are kept and not looked at."""

    model_config = ConfigDict(extra="ignore")

    hidden_size: _Count
    num_hidden_layers: Annotated[int, Field(gt=0, le=MAX_LAYERS, strict=True)]
    num_attention_heads: _Count
    vocab_size: _Count
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    max_position_embeddings: _Count = 2048
    rope_theta: float | None = Field(None, gt=0)
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    tie_word_embeddings: bool = False
    intermediate_size: _Count | None = None
    moe_intermediate_size: _Count | None = None
    shared_expert_intermediate_size: int | None = Field(None, ge=0, le=2**31)
    num_experts: int | None = Field(None, ge=0)
    num_local_experts: int | None = Field(None, ge=0)
    num_experts_per_tok: _Count | None = None
    norm_topk_prob: bool | None = None
    decoder_sparse_step: int = Field(1, ge=0)
    mlp_only_layers: list[int] | None = None
    attention_bias: bool | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = Field(1e-6, gt=0)
    torch_dtype: str | None = None
    dtype: str | None = None
    attention_dropout: float = Field(0.0, ge=0, le=1)
    router_aux_loss_coef: float | None = None
    output_router_logits: bool = False
    use_cache: bool = True
    veche: dict[str, Any] | None = None


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json, given the file itself or the folder that holds it.

    Raises:
        ConfigError: it is missing or is not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        return read_json_object(file)
    except VecheError as error:
        raise ConfigError(error.message, hint=error.hint) from error


def require_unquantised(config: dict[str, Any], where: str) -> None:
    """Refuse a config.json whose weights are quantised: surgery needs the original ones.

    Raises:
        UnsupportedError: it has a quantization_config.
    """
    entry = config.get("quantization_config")
    if entry:
        method = entry.get("quant_method", "unknown") if isinstance(entry, dict) else "unknown"
        raise UnsupportedError(
            f"{where} is quantised ({method}): its config.json has quantization_config, and "
            "surgery needs the original weights",
            hint="use the bf16 checkpoint of this model; quantise the grown model afterwards",
        )


def spec_of(config: dict[str, Any], *, where: str = "config.json") -> ModelSpec:
    """Return what `config` says.

    Args:
        config: the parsed config.json.
        where: its name in error messages.

    Raises:
        ConfigError: a key is missing, of a wrong type, out of range or in contradiction.
        UnsupportedError: the family is not known.
    """
    family = family_of(config.get("model_type"))
    try:
        parsed = _Config.model_validate(config)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error)}", hint="correct this key") from error
    head_dim = parsed.head_dim or parsed.hidden_size // parsed.num_attention_heads
    kv_heads = parsed.num_key_value_heads or parsed.num_attention_heads
    if parsed.num_attention_heads % kv_heads:
        raise ConfigError(
            f"{where}: num_attention_heads {parsed.num_attention_heads} is not a multiple of "
            f"num_key_value_heads {kv_heads}",
            hint="every key/value head must serve the same number of query heads",
        )
    return ModelSpec(
        model_type=family.model_type,
        hidden_size=parsed.hidden_size,
        num_hidden_layers=parsed.num_hidden_layers,
        num_attention_heads=parsed.num_attention_heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=parsed.vocab_size,
        max_position_embeddings=parsed.max_position_embeddings,
        rope=_rope_of(parsed),
        tie_word_embeddings=parsed.tie_word_embeddings,
        has_attention_bias=(
            family.has_qkv_bias if parsed.attention_bias is None else parsed.attention_bias
        ),
        hidden_act=parsed.hidden_act,
        rms_norm_eps=parsed.rms_norm_eps,
        torch_dtype=parsed.dtype or parsed.torch_dtype or "float32",
        attention_dropout=parsed.attention_dropout,
        router_aux_loss_coef=parsed.router_aux_loss_coef,
        output_router_logits=parsed.output_router_logits,
        use_cache=parsed.use_cache,
        **_mlp_of(parsed, family, where),
    )


def _mlp_of(parsed: _Config, family: Family, where: str) -> dict[str, Any]:
    """Return the spec's fields about dense MLPs and experts."""
    if family.expert_width_key is None:
        if parsed.intermediate_size is None:
            raise ConfigError(f"{where}: intermediate_size is missing")
        return {"intermediate_size": parsed.intermediate_size}
    width = getattr(parsed, family.expert_width_key)
    num_experts = parsed.num_experts if parsed.num_experts is not None else parsed.num_local_experts
    top_k = parsed.num_experts_per_tok
    for key, value in ((family.expert_width_key, width), (family.expert_count_key, num_experts)):
        if value is None:
            raise ConfigError(f"{where}: {key} is missing, and {family.model_type} needs it")
    if not top_k or not num_experts or top_k > num_experts:
        raise ConfigError(
            f"{where}: num_experts_per_tok is {top_k}, with {num_experts} experts",
            hint="it must be at least 1 and at most the number of experts",
        )
    has_dense = family.expert_width_key != "intermediate_size"
    default_norm = family.default_norm_topk_prob
    return {
        "intermediate_size": parsed.intermediate_size if has_dense else None,
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": (
            (parsed.shared_expert_intermediate_size or None) if family.has_shared_expert else None
        ),
        "num_experts": num_experts,
        "num_experts_per_tok": top_k,
        "norm_topk_prob": (
            True
            if default_norm is None
            else default_norm
            if parsed.norm_topk_prob is None
            else parsed.norm_topk_prob
        ),
        "decoder_sparse_step": parsed.decoder_sparse_step if has_dense else 1,
        "mlp_only_layers": tuple(parsed.mlp_only_layers or ()) if has_dense else (),
        "has_equal_routing_weights": _has_equal_routing(parsed.veche),
    }


def _has_equal_routing(note: dict[str, Any] | None) -> bool:
    """Whether veche's own carving made this checkpoint with routing weights of 1/k each."""
    carved = (note or {}).get("carved")
    return isinstance(carved, dict) and carved.get("equal_routing_weights") is True


def _rope_of(parsed: _Config) -> RopeSpec:
    """Merge the two spellings: a rope_scaling that says something wins, as in transformers 5.

    Source: transformers 5.23, modeling_rope_utils.py, convert_rope_params_to_dict: the
    other spelling is dropped then, with its rope_theta.
    """
    scaling, parameters = parsed.rope_scaling, parsed.rope_parameters
    has_scaling = scaling is not None and bool(scaling.model_fields_set)
    rope = (scaling if has_scaling else parameters) or _Rope.model_validate({})
    kind = rope.rope_type or rope.type or "default"
    return RopeSpec(
        rope_theta=rope.rope_theta or parsed.rope_theta or _DEFAULT_THETA,
        rope_type=kind,
        factor=rope.factor or 1.0,
        original_max_position_embeddings=rope.original_max_position_embeddings,
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {first['msg'].lower()} (it is {str(first.get('input'))[:60]!r})"
