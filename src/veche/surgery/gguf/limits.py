"""Refuse what llama.cpp's architectures cannot hold, before anything is written."""

from collections.abc import Callable, Mapping
from typing import Any

from veche.checkpoint.families import QkNorm
from veche.checkpoint.reader import Checkpoint
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import UnsupportedError
from veche.surgery.gguf.architectures import ARCHITECTURES, MAX_EXPERTS, MAX_LAYERS
from veche.surgery.gguf.rope import require_known_rope

_OTHER_ENGINE = "serve the checkpoint with vLLM or SGLang: veche launch MODEL --engine vllm"


def require_exportable(checkpoint: Checkpoint) -> None:
    """Refuse a model that llama.cpp would not load, or would load as another function.

    Raises:
        UnsupportedError: names the field and its value.
    """
    spec, config = checkpoint.spec, checkpoint.config
    for problem_of in _PROBLEMS:
        if problem := problem_of(spec, config):
            why, hint = problem
            raise UnsupportedError(
                f"{checkpoint.folder} cannot be a GGUF file: {why}", hint=hint or _OTHER_ENGINE
            )
    require_known_rope(spec, config, where=str(checkpoint.folder))


_Problem = tuple[str, str] | None
"""Why, and what to do (empty for another engine)."""


def _routing(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    architecture = ARCHITECTURES[spec.model_type]
    if not spec.is_moe or spec.num_experts_per_tok == spec.num_experts:
        return None  # with k = E the weights add up to one either way
    if spec.norm_topk_prob == architecture.normalises_top_k:
        return None
    always = "always" if architecture.normalises_top_k else "never"
    return (
        (
            f"norm_topk_prob is {str(spec.norm_topk_prob).lower()}, and llama.cpp's "
            f"{architecture.name} {always} normalises the weights of the chosen experts"
        ),
        "",
    )


def _dense_layers(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    if not spec.is_moe or spec.num_sparse_layers == spec.num_hidden_layers:
        return None
    dense = spec.num_hidden_layers - spec.num_sparse_layers
    return (
        (
            f"{dense} of its {spec.num_hidden_layers} layers are dense (mlp_only_layers, "
            "decoder_sparse_step), and llama.cpp expects experts in every layer"
        ),
        "",
    )


def _query_width(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    if ARCHITECTURES[spec.model_type].has_free_query_width or spec.q_size == spec.hidden_size:
        return None
    return (
        (
            f"num_attention_heads {spec.num_attention_heads} · head_dim {spec.head_dim} is "
            f"{spec.q_size}, and llama.cpp's {ARCHITECTURES[spec.model_type].name} needs "
            f"hidden_size, {spec.hidden_size}"
        ),
        "grow it without num_attention_heads, or " + _OTHER_ENGINE,
    )


def _flat_qk_norm(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    if spec.family.qk_norm is not QkNorm.FLAT or spec.kv_size == spec.hidden_size:
        return None
    return (
        (
            f"num_key_value_heads {spec.num_key_value_heads} · head_dim {spec.head_dim} is "
            f"{spec.kv_size}, and llama.cpp's olmoe needs a k_norm of "
            f"hidden_size, {spec.hidden_size}"
        ),
        "",
    )


def _counts(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    for name, limit in (("num_hidden_layers", MAX_LAYERS), ("num_experts", MAX_EXPERTS)):
        if getattr(spec, name) > limit:
            return f"{name} is {getattr(spec, name)}, and llama.cpp holds {limit}", ""
    return None


def _shared_expert(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    if spec.model_type != "qwen2_moe" or spec.shared_expert_intermediate_size:
        return None
    return "it has no shared expert, and llama.cpp's qwen2moe needs one", ""


def _activation(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    if spec.hidden_act == "silu":
        return None
    return f"hidden_act is {spec.hidden_act!r}, and llama.cpp computes silu for it", ""


def _clamp(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    if config.get("clip_qkv") is None:
        return None
    return f"clip_qkv is {config['clip_qkv']}, which llama.cpp does not read for this family", ""


def _window(spec: ModelSpec, config: Mapping[str, Any]) -> _Problem:
    window = config.get("sliding_window")
    is_used = config.get("use_sliding_window", spec.model_type == "mixtral")
    if not is_used or not isinstance(window, int) or window >= spec.position_limit:
        return None
    return (
        f"sliding_window is {window}, and llama.cpp attends to everything in this family",
        "set sliding_window to null in config.json if the model may attend to everything",
    )


_PROBLEMS: tuple[Callable[[ModelSpec, Mapping[str, Any]], _Problem], ...] = (
    _routing, _dense_layers, _query_width, _flat_qk_norm, _counts, _shared_expert, _activation,
    _clamp, _window,
)  # fmt: skip
