"""Rotary positions: what llama.cpp reads of them, and in which order it wants their rows."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import UnsupportedError
from veche.surgery.gguf.architectures import ARCHITECTURES

_BETAS = {"beta_fast": 32, "beta_slow": 1}
"""What llama.cpp computes with; it reads others from the command line only."""


def rope_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config's own dictionary of rope scaling, of either spelling; may be empty."""
    for key in ("rope_scaling", "rope_parameters"):
        settings = config.get(key)
        if isinstance(settings, dict) and settings:
            return settings
    return {}


def require_known_rope(spec: ModelSpec, config: Mapping[str, Any], *, where: str) -> None:
    """Refuse positions that llama.cpp would compute in another way.

    Raises:
        UnsupportedError: names the key and its value.
    """
    kind, settings = spec.rope.rope_type, rope_settings(config)
    known = {"default", "linear", "yarn"}
    if ARCHITECTURES[spec.model_type].reads_rope_freqs:
        known.add("llama3")
    problems = [] if kind in known else [f"rope_type {kind!r}"]
    if kind == "yarn":
        problems += [
            f"{key} {settings[key]}"
            for key, default in _BETAS.items()
            if settings.get(key) not in (None, default)
        ]
        if settings.get("truncate") is False:
            problems.append("truncate false")
    share = settings.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share not in (None, 1, 1.0):
        problems.append(f"partial_rotary_factor {share}")
    if problems:
        raise UnsupportedError(
            f"{where} cannot be a GGUF file: llama.cpp does not read {', '.join(problems)} "
            f"for {spec.model_type}",
            hint=f"it reads rope_type {', '.join(sorted(known))}, with the usual betas; use an "
            "engine that reads config.json: veche launch MODEL --engine vllm",
        )


def yarn_attention_scale(spec: ModelSpec, config: Mapping[str, Any]) -> float:
    """Return what llama.cpp must multiply its own YaRN factor by to reach transformers'.

    llama.cpp scales cos and sin by 1 + 0.1 · ln(factor), times rope.scaling.attn_factor.
    transformers scales them by attention_factor; else, with m(s) = 1 + 0.1 · s · ln(factor), by
    m(mscale) / m(mscale_all_dim) where both are given; else by m(1).

    Source: llama-context.cpp and rope_yarn in ggml-cpu/ops.cpp; transformers 5.23,
    _compute_yarn_parameters.
    """
    settings = rope_settings(config)

    def scale(strength: float) -> float:
        return 1.0 + 0.1 * strength * math.log(spec.rope.factor) if spec.rope.factor > 1 else 1.0

    wanted = settings.get("attention_factor")
    if wanted is None:
        over, under = settings.get("mscale"), settings.get("mscale_all_dim")
        wanted = scale(over) / scale(under) if over and under else scale(1.0)
    return float(wanted) / (1.0 + 0.1 * math.log(spec.rope.factor))


def llama3_frequency_factors(spec: ModelSpec, config: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return by what llama3's scaling divides each frequency, of shape (head_dim / 2,).

    With wavelength w = 2π · theta^(2i/d), original length L, and bounds L / low, L / high:
    1 below L / high, `factor` above L / low, and 1 / ((1 − s) / factor + s) between, with
    s = (L / w − low) / (high − low).

    Source: convert_hf_to_gguf.py, LlamaModel.generate_extra_tensors.
    """
    settings = rope_settings(config)
    factor = spec.rope.factor
    low = float(settings.get("low_freq_factor", 1.0))
    high = float(settings.get("high_freq_factor", 4.0))
    length = spec.rope.original_max_position_embeddings or 8192
    exponents = np.arange(0, spec.head_dim, 2, dtype=np.float32) / spec.head_dim
    wavelengths = 2 * math.pi * spec.rope.rope_theta**exponents
    smooth = (length / wavelengths - low) / (high - low)
    between = 1.0 / ((1.0 - smooth) / factor + smooth)
    scaled = np.where(wavelengths > length / low, factor, between)
    return np.where(wavelengths < length / high, 1.0, scaled).astype(np.float32)


def neighbours_from_halves(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Reorder rows of q or k so that what rope turns together lies side by side.

    In each head, row (h, i) of halves h ∈ {0, 1} goes to row (i, h): 0, d/2, 1, d/2 + 1, …

    Shapes: (heads · head_dim, …) → the same.

    Source: convert_hf_to_gguf.py, LlamaModel.permute.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
