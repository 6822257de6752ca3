"""config.json → ModelSpec, from the spelling of transformers 4 or 5."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.checkpoint.families import Family, family_of
from veche.checkpoint.layers import MAX_LAYERS
from veche.checkpoint.spec import ModelSpec, RopeSpec
from veche.core.errors import ConfigError, UnsupportedError, VecheError
from veche.core.files import read_json_object

MAX_CONFIG_BYTES = 8 << 20
"""The longest config.json that is read; one has some kilobytes."""
_Count = Annotated[int, Field(gt=0, le=2**31)]
_Real = Annotated[float, Field(allow_inf_nan=False, ge=-1e18, le=1e18)]
_SHOWN = 60


class _Rope(BaseModel):
    """rope_scaling (transformers 4) or rope_parameters (transformers 5)."""

    model_config = ConfigDict(extra="ignore", strict=True)

    rope_theta: _Real | None = Field(None, gt=0)
    rope_type: str | None = None
    type: str | None = None
    factor: _Real | None = Field(None, gt=0, le=1e6)
    original_max_position_embeddings: _Count | None = None


class _Config(BaseModel):
    """The keys of a config.json that veche reads; all others are kept and not looked at.

    Types are strict, as in transformers 5: `"128"` and `true` are no numbers.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    hidden_size: _Count
    num_hidden_layers: Annotated[int, Field(gt=0, le=MAX_LAYERS)]
    num_attention_heads: _Count
    vocab_size: _Count
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    max_position_embeddings: _Count | None = None
    rope_theta: _Real | None = Field(None, gt=0)
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    tie_word_embeddings: bool = False
    intermediate_size: _Count | None = None
    moe_intermediate_size: _Count | None = None
    shared_expert_intermediate_size: int | None = Field(None, ge=0, le=2**31)
    num_experts: int | None = Field(None, ge=0, le=2**31)
    num_local_experts: int | None = Field(None, ge=0, le=2**31)
    num_experts_per_tok: _Count | None = None
    norm_topk_prob: bool | None = None
    decoder_sparse_step: int = Field(1, ge=0, le=MAX_LAYERS)
    mlp_only_layers: list[int] | None = Field(None, max_length=MAX_LAYERS)
    attention_bias: bool | None = None
    qkv_bias: bool | None = None
    hidden_act: str = "silu"
    rms_norm_eps: _Real | None = Field(None, gt=0)
    torch_dtype: str | None = None
    dtype: str | None = None
    attention_dropout: float = Field(0.0, ge=0, le=1)
    router_aux_loss_coef: _Real | None = None
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
        return read_json_object(file, max_bytes=MAX_CONFIG_BYTES)
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
    kv_heads = _kv_heads_of(parsed, family, where)
    return ModelSpec(
        model_type=family.model_type,
        hidden_size=parsed.hidden_size,
        num_hidden_layers=parsed.num_hidden_layers,
        num_attention_heads=parsed.num_attention_heads,
        num_key_value_heads=kv_heads,
        head_dim=_head_dim_of(parsed, family, where),
        vocab_size=parsed.vocab_size,
        max_position_embeddings=(
            parsed.max_position_embeddings or family.default_max_position_embeddings
        ),
        rope=_rope_of(parsed, family),
        tie_word_embeddings=parsed.tie_word_embeddings,
        has_attention_bias=_has_bias(parsed, family),
        hidden_act=parsed.hidden_act,
        rms_norm_eps=parsed.rms_norm_eps or family.default_rms_norm_eps,
        torch_dtype=parsed.dtype or parsed.torch_dtype or "float32",
        attention_dropout=parsed.attention_dropout,
        router_aux_loss_coef=parsed.router_aux_loss_coef,
        output_router_logits=parsed.output_router_logits,
        use_cache=parsed.use_cache,
        **_mlp_of(parsed, family, where),
    )


def _kv_heads_of(parsed: _Config, family: Family, where: str) -> int:
    """Return num_key_value_heads: given, null (as many as query heads), or the class's default."""
    heads, kv_heads = parsed.num_attention_heads, parsed.num_key_value_heads
    if kv_heads is None:
        is_null = "num_key_value_heads" in parsed.model_fields_set
        if is_null and "num_key_value_heads" not in family.nullable:
            raise _null_error("num_key_value_heads", family, where)
        kv_heads = heads if is_null else family.default_num_key_value_heads or heads
    if heads % kv_heads:
        is_default = parsed.num_key_value_heads is None
        raise ConfigError(
            f"{where}: num_attention_heads {heads} is not a multiple of num_key_value_heads "
            f"{kv_heads}" + (f", the default of {family.model_type}" if is_default else ""),
            hint="every key/value head must serve the same number of query heads",
        )
    return kv_heads


def _head_dim_of(parsed: _Config, family: Family, where: str) -> int:
    """Return head_dim: given, or the class's default, or hidden_size over the heads."""
    heads = parsed.num_attention_heads
    is_null = parsed.head_dim is None and "head_dim" in parsed.model_fields_set
    if is_null and "head_dim" not in family.nullable:
        raise _null_error("head_dim", family, where)
    head_dim = parsed.head_dim or family.default_head_dim or parsed.hidden_size // heads
    if head_dim == 0:
        raise ConfigError(
            f"{where}: head_dim is missing, and hidden_size {parsed.hidden_size} over "
            f"{heads} num_attention_heads is none",
            hint="correct these keys",
        )
    return head_dim


def _null_error(key: str, family: Family, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: {key} is null, which {family.architecture} does not take",
        hint="remove this key, or give its value",
    )


def _has_bias(parsed: _Config, family: Family) -> bool:
    """Whether q, k and v have biases, by the key that the family's class reads, if any."""
    given = getattr(parsed, family.bias_key) if family.bias_key else None
    return family.has_qkv_bias if given is None else bool(given)


def _num_experts_of(parsed: _Config, where: str) -> int | None:
    """Return the number of experts, from whichever of its two keys is there."""
    counts = {parsed.num_experts, parsed.num_local_experts} - {None}
    if len(counts) > 1:
        raise ConfigError(
            f"{where}: num_experts is {parsed.num_experts}, and num_local_experts is "
            f"{parsed.num_local_experts}",
            hint="readers differ in which of them they use: remove the wrong one",
        )
    return next(iter(counts), None)


def _shared_width_of(parsed: _Config, family: Family, where: str) -> int | None:
    """Return the shared expert's width, in the family that has one."""
    if family.default_shared_width is None:
        return None
    width = parsed.shared_expert_intermediate_size
    if width is None:
        if "shared_expert_intermediate_size" in parsed.model_fields_set:
            raise _null_error("shared_expert_intermediate_size", family, where)
        width = family.default_shared_width
    return width or None


def _mlp_of(parsed: _Config, family: Family, where: str) -> dict[str, Any]:
    """Return the spec's fields about dense MLPs and experts."""
    if family.expert_width_key is None:
        if parsed.intermediate_size is None:
            raise ConfigError(
                f"{where}: intermediate_size is missing, and {family.model_type} needs it",
                hint="fetch config.json again",
            )
        return {"intermediate_size": parsed.intermediate_size}
    width = getattr(parsed, family.expert_width_key)
    num_experts = _num_experts_of(parsed, where)
    top_k = parsed.num_experts_per_tok
    for key, value in ((family.expert_width_key, width), (family.expert_count_key, num_experts)):
        if value is None:
            raise ConfigError(
                f"{where}: {key} is missing, and {family.model_type} needs it",
                hint="fetch config.json again",
            )
    if not top_k or not num_experts or top_k > num_experts:
        raise ConfigError(
            f"{where}: num_experts_per_tok is {top_k}, with {num_experts} experts",
            hint="it must be at least 1 and at most the number of experts",
        )
    has_dense = family.expert_width_key != "intermediate_size"
    if has_dense and parsed.decoder_sparse_step == 0:
        raise ConfigError(
            f"{where}: decoder_sparse_step is 0, and transformers divides by it",
            hint="1 makes every layer a mixture of experts",
        )
    default_norm = family.default_norm_topk_prob
    return {
        "intermediate_size": parsed.intermediate_size if has_dense else None,
        "moe_intermediate_size": width,
        "shared_expert_intermediate_size": _shared_width_of(parsed, family, where),
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


def _rope_of(parsed: _Config, family: Family) -> RopeSpec:
    """Merge the two spellings: a rope_scaling that says something wins, as in transformers 5.

    Source: transformers 5.23, modeling_rope_utils.py, convert_rope_params_to_dict: the
    other spelling is dropped then, with its rope_theta.
    """
    scaling, parameters = parsed.rope_scaling, parsed.rope_parameters
    has_scaling = scaling is not None and bool(scaling.model_fields_set)
    rope = (scaling if has_scaling else parameters) or _Rope.model_validate({})
    kind = rope.rope_type or rope.type or "default"
    return RopeSpec(
        rope_theta=rope.rope_theta or parsed.rope_theta or family.default_rope_theta,
        rope_type=kind,
        factor=rope.factor or 1.0,
        original_max_position_embeddings=rope.original_max_position_embeddings,
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    given = repr(first.get("input"))
    shown = given if len(given) <= _SHOWN else given[:_SHOWN] + "…"
    return f"{key}: {first['msg'].lower()} (it is {shown})"
