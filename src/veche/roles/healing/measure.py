"""What healing gave back: a model's answers on held-out text, beside those of its teacher.

Legend: W windows, T tokens of a window, P = T − 1 predictions. This file imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from veche.core.progress import Progress
from veche.experts.bootstrap import Interval, mean_interval
from veche.experts.dial.figures import WindowFigures
from veche.experts.dial.measure import DialText, compared, states_of
from veche.roles.evaluation.intervals import grouped_interval
from veche.surgery.loading import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A healed model against the same before it was healed, on W held-out windows.

    Attributes:
        source_nll: of the teacher, nats a token.
        lost: NLL of the unhealed model − of the teacher, of the same windows.
        left: NLL of the healed model − of the teacher.
        recovered: 1 − left/lost; None where the interval of what was lost reaches 0: a share of it
            would say nothing.
        kl: KL(teacher‖model), before and after.
        nll_gain: lost − left, nats a token; below 0 where healing did harm.
        kl_gain: how far KL fell, likewise.
        top1: share of tokens after which model and teacher choose the same token, before and after.
    """

    source_nll: Interval
    lost: Interval
    left: Interval
    recovered: Interval | None
    kl: tuple[Interval, Interval]
    nll_gain: Interval
    kl_gain: Interval
    top1: tuple[Interval, Interval]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        pairs = {"kl": self.kl, "top1_agreement": self.top1}
        single: dict[str, Interval | None] = {
            "source_nll": self.source_nll,
            "lost": self.lost,
            "left": self.left,
            "nll_gain": self.nll_gain,
            "kl_gain": self.kl_gain,
            "recovered": self.recovered,
        }
        result: dict[str, Any] = {}
        for name, interval in single.items():
            result |= {
                name: None if interval is None else interval.mean,
                f"{name}_interval": None if interval is None else interval.as_list(),
            }
        for name, both in pairs.items():
            for when, interval in zip(("before", "after"), both, strict=True):
                result |= {
                    f"{name}_{when}": interval.mean,
                    f"{name}_{when}_interval": interval.as_list(),
                }
        return result


class Heldout:
    """The held-out windows, and what the teacher answers there.

    Attributes:
        text: the windows.
        teacher_nll: the teacher's NLL of each, nats a token.
    """

    def __init__(self, teacher: Model, tokens_WT: Tensor, progress: Progress) -> None:
        """Let the teacher read them.

        Args:
            teacher: the model that answers are compared with.
            tokens_WT: the windows.
            progress: told of each window.
        """
        self.text = DialText(tokens=tokens_WT, short_tokens=tokens_WT.shape[1])
        self._progress = progress
        self._head = teacher.get_output_embeddings()
        self._states = self._read(teacher, "teacher reads held-out text")
        self.teacher_nll = self._own_nll()

    def figures(self, model: Model, label: str) -> WindowFigures:
        """Return a model's answers against the teacher's."""
        states = self._read(model, label)
        return compared(model, self._states, states, self.text, base_head=self._head)["short"]

    @torch.inference_mode()
    def _own_nll(self) -> tuple[float, ...]:
        nll = []
        for states_PH, targets_P in zip(self._states["short"], self.text.targets, strict=True):
            logits_PV = self._head(states_PH).double()
            found_P = logits_PV.gather(1, targets_P[:, None])[:, 0]
            nll.append(float((logits_PV.logsumexp(-1) - found_P).mean()))
        return tuple(nll)

    def _read(self, model: Model, label: str) -> Any:
        with self._progress.task(label, len(self.text.tokens)) as advance:
            return states_of(model, self.text, advance)


def recovery(teacher_nll: Sequence[float], before: WindowFigures, after: WindowFigures) -> Recovery:
    """Compare a healed model with the same model before, window by window.

    Intervals resample windows, the same ones for all three models.

    Args:
        teacher_nll: of each window.
        before: of the model as its dials leave it.
        after: of the healed model, on the same windows.
    """
    source_W = np.asarray(teacher_nll)
    lost_W, left_W = (np.asarray(each.nll) - source_W for each in (before, after))

    def share(rows: Any) -> float:
        lost = float(lost_W[rows].mean())
        return 1 - float(left_W[rows].mean()) / lost if lost else float("nan")

    names = [f"{window:06}" for window in range(len(source_W))]
    lost = mean_interval(lost_W)
    return Recovery(
        source_nll=mean_interval(source_W),
        lost=lost,
        left=mean_interval(left_W),
        recovered=grouped_interval(share, names) if lost.is_above_zero else None,
        kl=(mean_interval(before.kl), mean_interval(after.kl)),
        nll_gain=mean_interval(lost_W - left_W),
        kl_gain=mean_interval(np.asarray(before.kl) - np.asarray(after.kl)),
        top1=(mean_interval(before.same), mean_interval(after.same)),
    )
