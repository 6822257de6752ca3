"""One verification's models, text and device. This file imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from veche.surgery.verification.variants import Experiment, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is run on which text, and where: the same in either form.

    Attributes:
        folders: of the source and of the grown model.
        experiment: what to run, and what to compare.
        tokens: the text on the device, [W, T].
        fp32_tokens: tokens of the first window that are run in float32.
        device: where the models run.
    """

    folders: Mapping[Side, Path]
    experiment: Experiment
    tokens: Tensor
    fp32_tokens: int
    device: torch.device

    def tokens_of(self, *, is_fp32: bool) -> Tensor:
        """Return the tokens that a variant is run on, [W, T]."""
        return self.tokens[:1, : self.fp32_tokens] if is_fp32 else self.tokens
