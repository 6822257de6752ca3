"""Prove that a carved model with k = E is the dense model, in float32. This file imports torch."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from veche.checkpoint.config import read_config
from veche.core.errors import VerificationError
from veche.core.progress import Advance
from veche.surgery.compare import Comparison
from veche.surgery.loading import Model, load_model

TOLERANCE = 1e-5
"""Largest difference of two logits, in parts of the largest logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    """The carved model with every expert at work, against the dense one, in float32.

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
    dense: Model, folder: Path, tokens_WT: Tensor, *, top_k: int, advance: Advance
) -> Equality:
    """Compare the carved checkpoint in `folder` with the dense model it was carved from.

    Where k is no power of two, `down`·k is rounded in the checkpoint's dtype; `dense` is then given
    the same rounding, in place, so that carving itself is what is judged.

    Args:
        dense: the source, in float32.
        folder: the carved checkpoint.
        tokens_WT: held-out text.
        top_k: the k that the checkpoint's `down` is scaled for.
        advance: called with 1 for each window.

    Raises:
        CheckpointError: transformers misses a tensor, or finds one too many.
        VerificationError: they differ by more than float32's noise.
    """
    config = read_config(folder)
    num_experts = config["num_local_experts"]
    carved = load_model(folder, changes={"num_experts_per_tok": num_experts}, dtype=torch.float32)
    if top_k != num_experts:
        _undo_scale(dense, carved, top_k, num_experts, dtype=getattr(torch, config["dtype"]))
    total = Comparison()
    for tokens_T in tokens_WT:
        p_logits, q_logits = (_logits(model, tokens_T) for model in (dense, carved))
        total.add(p_logits, q_logits, tokens_T)
        advance(1)
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


def _undo_scale(
    dense: Model, carved: Model, top_k: int, num_experts: int, *, dtype: torch.dtype
) -> None:
    for dense_layer, carved_layer in zip(dense.model.layers, carved.model.layers, strict=True):
        down_HI = dense_layer.mlp.down_proj.weight
        down_HI.copy_((down_HI * top_k).to(dtype).float() / top_k)
        carved_layer.mlp.experts.down_proj.mul_(num_experts / top_k)


def _logits(model: Model, tokens_T: Tensor) -> Tensor:
    logits: Tensor = model(tokens_T[None], use_cache=False).logits[0]
    return logits
