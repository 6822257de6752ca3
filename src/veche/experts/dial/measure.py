"""Run one setting on the text, and compare its predictions with the base's. Imports torch.

Legend: W windows, T tokens of a window, P predictions of a window, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from veche.core.progress import Advance
from veche.experts.calibration_error import calibration_error
from veche.experts.dial.figures import Context, WindowFigures
from veche.surgery.loading import Model
from veche.surgery.verification.compare import PairSums

States = Mapping[Context, Tensor]
"""What the output head reads, [W, P, H], in each context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialText:
    """The windows that every setting reads.

    The short context is the last `short_tokens` of a window, the long one is all of it; what is
    predicted is the same in both, so that only the context differs.

    Attributes:
        tokens: on the device, [W, T].
        short_tokens: of the short context; P = short_tokens − 1.
    """

    tokens: Tensor
    short_tokens: int

    @property
    def contexts(self) -> dict[Context, int]:
        """Tokens of a window in each context; the long one only where it is longer."""
        long_tokens = self.tokens.shape[1]
        both: dict[Context, int] = {"short": self.short_tokens, "long": long_tokens}
        return both if long_tokens > self.short_tokens else {"short": self.short_tokens}

    @property
    def num_predictions(self) -> int:
        """P."""
        return self.short_tokens - 1

    @property
    def targets(self) -> Tensor:
        """What is to be predicted, [W, P]."""
        return self.tokens[:, -self.num_predictions :]


def _nothing(context: Context) -> None:
    """Do nothing after a window."""


@torch.inference_mode()
def states_of(
    model: Model,
    text: DialText,
    advance: Advance,
    *,
    after_window: Callable[[Context], None] = _nothing,
) -> dict[Context, Tensor]:
    """Return what the output head reads where something is to be predicted.

    No dial touches the head, so these small states stand for the base's logits later on.

    Args:
        model: a causal language model of transformers.
        text: what it reads.
        advance: called with 1 for each window.
        after_window: called with the context of each window that was read.
    """
    states: dict[Context, Tensor] = {}
    for context, num_tokens in text.contexts.items():
        rows = []
        for tokens_T in text.tokens[:, -num_tokens:]:
            output = model.model(input_ids=tokens_T[None], use_cache=False)
            rows.append(output.last_hidden_state[0, -text.num_predictions - 1 : -1])
            after_window(context)
            advance(1)
        states[context] = torch.stack(rows)
    return states


@torch.inference_mode()
def compared(
    model: Model,
    base: States,
    turned: States,
    text: DialText,
    *,
    temperature: float = 1.0,
    base_head: Any = None,
) -> dict[Context, WindowFigures]:
    """Compare two settings' predictions of the same tokens.

    Args:
        model: whose output head is read.
        base: states under the checkpoint's own setting.
        turned: states under the other.
        text: what was read.
        temperature: what the turned logits are divided by.
        base_head: the output head of the base's states; None is the model's, which both share.
    """
    head = model.get_output_embeddings()
    heads = (base_head or head, head)
    return {
        context: _compared(heads, base[context], turned[context], text.targets, temperature)
        for context in text.contexts
    }


def _compared(
    heads: tuple[Any, Any],
    base_WPH: Tensor,
    turned_WPH: Tensor,
    targets_WP: Tensor,
    temperature: float,
) -> WindowFigures:
    base_head, head = heads
    nll, kl, same, confidence, is_right = [], [], [], [], []
    for base_PH, turned_PH, targets_P in zip(base_WPH, turned_WPH, targets_WP, strict=True):
        sums = PairSums(targets_P)
        turned_PV = head(turned_PH).float() / temperature
        sums.add(base_head(base_PH), turned_PV)
        nll.append(float(sums.nll_q.mean()))
        kl.append(float(sums.kl.mean()))
        same.append(float(sums.is_same.double().mean()))
        best_P, choice_P = turned_PV.max(-1)
        confidence.append((best_P - turned_PV.logsumexp(-1)).exp().cpu().numpy())
        is_right.append((choice_P == targets_P).cpu().numpy())
    return WindowFigures(
        nll=tuple(nll),
        kl=tuple(kl),
        same=tuple(same),
        ece=calibration_error(np.concatenate(confidence), np.concatenate(is_right)),
    )
