"""Prove that a carved model with k = E is the dense model, in float32. This file imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from veche.checkpoint.config import read_config, spec_of
from veche.core.errors import VerificationError
from veche.core.progress import Advance
from veche.surgery.carving.files import SHARED_GAIN
from veche.surgery.carving.layer_fit import CarvedLayer
from veche.surgery.loading import Model, load_model
from veche.surgery.verification.compare import Comparison

TOLERANCE = 2e-5
"""Largest difference of two logits, in parts of the largest logit.

SmolLM2-135M: 9e-6; two attention implementations of the dense model differ by 2e-6.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    """The carved model with every expert at work, against the dense one, in float32.

    Where `down` was refitted, the dense one is given the refitted `down`.

    Attributes:
        num_tokens: held-out predictions compared.
        max_abs_logit_diff: the largest difference of two logits.
        logit_scale: the largest logit of the dense model.
        kl: mean KL(dense‖carved), nats a token.
    """

    num_tokens: int
    max_abs_logit_diff: float
    logit_scale: float
    kl: float


@torch.no_grad()
def check_equality(
    source: Path,
    folder: Path,
    layers: Sequence[CarvedLayer],
    tokens_WT: Tensor,
    *,
    top_k: int,
    advance: Advance,
) -> Equality:
    """Compare the carved checkpoint in `folder` with the dense one that it was carved from.

    Where k is no power of two, `down`·k is rounded in the checkpoint's dtype; the dense model is
    then given the same rounding, so that carving itself is what is judged. A refitted `down` it
    is given too: what is proved then is that the files hold what was fitted.

    Args:
        source: the dense checkpoint.
        folder: the carved checkpoint.
        layers: what was carved.
        tokens_WT: held-out text.
        top_k: the k that the carved checkpoint's `down` is scaled for.
        advance: called with 1 for each window of either model.

    Raises:
        CheckpointError: transformers misses a tensor, or finds one too many.
        VerificationError: they differ by more than float32's noise.
    """
    dense_logits = _logits(_dense(source, layers, top_k), tokens_WT, advance)
    carved_logits = _logits(_carved(folder, top_k), tokens_WT, advance)
    total = Comparison()
    for dense_TV, carved_TV, tokens_T in zip(dense_logits, carved_logits, tokens_WT, strict=True):
        total.add(dense_TV, carved_TV, tokens_T)
    result = Equality(
        num_tokens=total.num_tokens,
        max_abs_logit_diff=total.max_abs_diff,
        logit_scale=total.scale,
        kl=total.kl,
    )
    if not result.max_abs_logit_diff <= TOLERANCE * result.logit_scale:
        raise VerificationError(
            f"with all experts at work the carved model's logits differ from the dense model's by "
            f"{result.max_abs_logit_diff:.2g} (largest logit {result.logit_scale:.3g}, allowed "
            f"{TOLERANCE:.0e} of it)",
            hint="nothing was written; please report this with the model's name",
        )
    return result


def _dense(source: Path, layers: Sequence[CarvedLayer], top_k: int) -> Model:
    """Return the dense model, its `down` refitted and rounded as the carved checkpoint's is."""
    model = load_model(source, dtype=torch.float32)
    dtype = getattr(torch, spec_of(read_config(source)).torch_dtype)
    for layer, fit in zip(model.model.layers, layers, strict=True):
        down_HI = layer.mlp.down_proj.weight
        gain_I = torch.full((down_HI.shape[1],), float(top_k))
        gain_I[fit.shared] = SHARED_GAIN
        wanted_HI = down_HI if fit.down is None else fit.down
        down_HI.copy_((wanted_HI * gain_I).to(dtype).float() / gain_I)
    return model


def _carved(folder: Path, top_k: int) -> Model:
    """Return the carved model with every expert at work, as loud as k of them were."""
    num_experts = spec_of(read_config(folder)).num_experts
    model = load_model(folder, changes={"num_experts_per_tok": num_experts}, dtype=torch.float32)
    for layer in model.model.layers:
        layer.mlp.experts.down_proj.mul_(num_experts / top_k)
    return model


def _logits(model: Model, tokens_WT: Tensor, advance: Advance) -> list[Tensor]:
    logits = []
    for tokens_T in tokens_WT:
        logits.append(model(tokens_T[None], use_cache=False).logits[0])
        advance(1)
    return logits
