"""Fit every layer on the activations that the carved model will see.

Shape suffixes: W windows, T tokens in a window, N = W·T, H model width, I hidden units.
This file imports torch.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from veche.core.errors import CheckpointError
from veche.core.progress import Progress
from veche.surgery.carving.layer_fit import CarvedLayer, Division, fit_layer, kept_units
from veche.surgery.carving.refit import refit_down
from veche.surgery.loading import Model

_WINDOWS_AT_ONCE = 4


@torch.no_grad()
def fit_layers(
    model: Model,
    tokens_WT: Tensor,
    division: Division,
    *,
    is_refitted: bool = False,
    seed: int,
    progress: Progress,
) -> list[CarvedLayer]:
    """Walk through the dense model once, carving each layer before its output is passed on.

    NOTE: a layer's input is what the carved layers before it give with `top_k` experts, so each
    fit sees, and answers, the errors made so far. With `is_refitted` the dense model's own
    residual stream walks along: `down` is refitted to lead back to it.

    Args:
        model: the dense model; its dtype is computed in, the residual stream is in float32.
        tokens_WT: calibration text.
        division: into what every layer is divided.
        is_refitted: whether `down` is refitted to make up for what the router drops.
        seed: of the router's refinement.
        progress: where to report.
    """
    core, dtype = model.model, model.dtype
    hidden_WTH = core.embed_tokens(tokens_WT)
    rotary = core.rotary_emb(hidden_WTH, torch.arange(tokens_WT.shape[1])[None])
    hidden_WTH = hidden_WTH.float()
    dense_WTH = hidden_WTH if is_refitted else None
    carved = []
    with progress.task("carve", len(core.layers)) as advance:
        for layer in core.layers:
            hidden_WTH = attend(layer, hidden_WTH, rotary, dtype)
            if dense_WTH is not None:
                dense_WTH = attend(layer, dense_WTH, rotary, dtype)
                dense_WTH = dense_WTH + layer.mlp(normed(layer, dense_WTH, dtype))
            fit, output_NH = _carve_layer(layer, hidden_WTH, dense_WTH, division, seed)
            hidden_WTH = hidden_WTH + output_NH.view_as(hidden_WTH)
            carved.append(fit)
            advance(1)
    return carved


def attend(layer: Any, hidden_WTH: Tensor, rotary: Any, dtype: torch.dtype) -> Tensor:
    """Return the residual stream after a layer's attention, a few windows at a time."""
    parts = [
        part
        + layer.self_attn(
            hidden_states=layer.input_layernorm(part.to(dtype)),
            position_embeddings=rotary,
            attention_mask=None,
        )[0]
        for part in torch.split(hidden_WTH, _WINDOWS_AT_ONCE)
    ]
    return torch.cat(parts)


def normed(layer: Any, residual: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a layer's MLP reads of the residual stream."""
    normed: Tensor = layer.post_attention_layernorm(residual.to(dtype))
    return normed


def _carve_layer(
    layer: Any, hidden_WTH: Tensor, dense_WTH: Tensor | None, division: Division, seed: int
) -> tuple[CarvedLayer, Tensor]:
    """Return a layer's fit, and its output with `top_k` experts."""
    mlp, residual_NH = layer.mlp, hidden_WTH.flatten(0, 1)
    down_HI: Tensor = mlp.down_proj.weight
    inputs_NH = normed(layer, residual_NH, down_HI.dtype)
    activations_NI = mlp.act_fn(mlp.gate_proj(inputs_NH)) * mlp.up_proj(inputs_NH)
    weight_N = 1 / (residual_NH + mlp.down_proj(activations_NI)).square().sum(dim=1)
    if not weight_N.isfinite().all():
        raise CheckpointError(
            "the model's hidden states are NaN or infinite on this text: a weight is damaged",
            hint="fetch the checkpoint again",
        )
    inputs_NH = inputs_NH.float()
    fit = fit_layer(activations_NI, inputs_NH, down_HI, weight_N, division, seed=seed)
    kept_NI = kept_units(fit, inputs_NH, division.top_k).to(activations_NI.dtype)
    activations_NI = activations_NI * kept_NI
    if dense_WTH is not None:
        missing_NH = dense_WTH.flatten(0, 1) - residual_NH
        fit = replace(fit, down=refit_down(activations_NI, down_HI, missing_NH, weight_N))
    used_HI = down_HI if fit.down is None else fit.down.to(down_HI.dtype)
    return fit, activations_NI @ used_HI.T
