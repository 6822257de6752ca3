"""A dense model's config.json as that of a mixture of copies of its MLPs."""

from collections.abc import Mapping
from typing import Any

from veche.checkpoint.families import FAMILIES, family_of

SHARED_WIDTH = 64
"""Hidden units of the silent shared expert that transformers' Qwen2Moe always has."""

_WITH_DEFAULTS = ("max_position_embeddings", "rms_norm_eps", "rope_theta")
"""What a dense config.json may leave out, and its mixture may take to be something else."""

_ALL_SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
_OF_MIXTURE: dict[str, dict[str, Any]] = {
    "mixtral": {"router_jitter_noise": 0.0, "sliding_window": None},
    "qwen2_moe": {**_ALL_SPARSE, "shared_expert_intermediate_size": SHARED_WIDTH},
    "qwen3_moe": _ALL_SPARSE,
}
_FOR_TRAINING = {"output_router_logits": False, "router_aux_loss_coef": 0.001}


def as_mixture(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Return a dense `config` in the words of `model_type`; counts of experts are not in it yet.

    Every layer is a mixture, an expert is as wide as the dense MLP was, and the weights of the
    chosen experts are normalised, so that identical experts are that MLP whatever is chosen.
    auto_map, which names code for the dense class, is left out.
    """
    family, dense = FAMILIES[model_type], family_of(config.get("model_type"))
    rope = {**(config.get("rope_parameters") or {}), **(config.get("rope_scaling") or {})}
    given = {**rope, **{key: value for key, value in config.items() if value is not None}}
    defaults = {key: getattr(dense, f"default_{key}") for key in _WITH_DEFAULTS}
    missing = {
        key: value
        for key, value in defaults.items()
        if given.get(key) is None and value != getattr(family, f"default_{key}")
    }
    return {
        **{key: value for key, value in config.items() if key != "auto_map"},
        **missing,
        **_OF_MIXTURE[model_type],
        **_FOR_TRAINING,
        str(family.expert_width_key): config["intermediate_size"],
        "model_type": model_type,
        "architectures": [family.architecture],
    }
