"""The dial's figures with their intervals: what was measured, resampled by windows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.experts.bootstrap import Interval, difference_interval, mean_interval, median_bounds
from veche.experts.dial.figures import Context, SettingFigures, WindowFigures
from veche.experts.dial.points import DialName

_FEWEST_ROUNDS = 5
"""Of the clock, for an interval: fewer, resampled, would claim to know what they cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRow:
    """One setting's predictions in one context; intervals are over windows, at 95 %.

    Attributes:
        nll: nats a token.
        nll_delta: against the base on the same tokens.
        kl: KL(base‖setting), nats a token.
        top1_agreement: share of tokens after which both would choose the same next one greedily.
        ece: expected calibration error.
        experts: adaptive only: mean experts a token.
        over_fixed: adaptive only: ΔNLL against fixed top-k at the same mean experts.
    """

    nll: Interval
    nll_delta: Interval
    kl: Interval
    top1_agreement: Interval
    ece: float
    experts: Interval | None = None
    over_fixed: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting.

    Attributes:
        value: of the dial.
        is_base: whether it is the checkpoint's own.
        contexts: the predictions in each context.
        tokens_per_s: of decode, median of the rounds; None where it was not measured.
        speed_ratio: median over rounds of base's seconds by this setting's; its interval is
            NaN where there are fewer than five.
        scale: adaptive only: the factor of exp(H).
    """

    value: float
    is_base: bool
    contexts: Mapping[Context, ContextRow]
    tokens_per_s: float | None = None
    speed_ratio: Interval | None = None
    scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DialReport:
    """Everything that `veche dial` shows.

    Attributes:
        dial: its name.
        model: the checkpoint's folder.
        base: the checkpoint's own value.
        reason: why these values.
        context_tokens: tokens of a window in each context.
        num_windows: windows of text, W.
        num_predictions: predictions of a window, in either context.
        rounds: of the clock.
        is_carved: whether routing weights are equal, so that top-k brings a gain.
        rows: each setting, by value.
        fixed: adaptive only: fixed top-k settings to compare with, by value.
        folder: where settings are kept.
    """

    dial: DialName
    model: str
    base: float
    reason: str
    context_tokens: Mapping[Context, int]
    num_windows: int
    num_predictions: int
    rounds: int
    is_carved: bool
    rows: tuple[Row, ...]
    fixed: tuple[Row, ...] = ()
    folder: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "dial": self.dial,
            "model": self.model,
            "base": self.base,
            "reason": self.reason,
            "context_tokens": dict(self.context_tokens),
            "num_windows": self.num_windows,
            "num_predictions": self.num_predictions,
            "rounds": self.rounds,
            "is_carved": self.is_carved,
            "rows": [_row_dict(row) for row in self.rows],
            "fixed": [_row_dict(row) for row in self.fixed],
            "folder": self.folder,
        }


def row_of(
    figures: SettingFigures,
    base: SettingFigures,
    *,
    new_tokens: int,
    fixed: Sequence[SettingFigures] = (),
) -> Row:
    """Return one setting's figures with their intervals.

    Args:
        figures: of the setting.
        base: of the base, on the same windows.
        new_tokens: decoded in a round.
        fixed: fixed top-k settings, by ascending value, where it is an adaptive one.
    """
    speed = None
    if figures.turned_s:
        ratio_R = np.divide(figures.base_s, figures.turned_s)
        is_enough = len(ratio_R) >= _FEWEST_ROUNDS
        low, high = median_bounds(ratio_R) if is_enough else (math.nan, math.nan)
        speed = Interval(mean=float(np.median(ratio_R)), low=low, high=high)
    return Row(
        value=figures.value,
        is_base=figures is base,
        contexts={
            name: _context_row(
                each, base.contexts[name], {other.value: other.contexts[name] for other in fixed}
            )
            for name, each in figures.contexts.items()
        },
        tokens_per_s=new_tokens / float(np.median(figures.turned_s)) if speed else None,
        speed_ratio=speed,
        scale=figures.scale,
    )


def _context_row(
    figures: WindowFigures, base: WindowFigures, fixed: Mapping[float, WindowFigures]
) -> ContextRow:
    experts = mean_interval(figures.experts) if figures.experts else None
    over = None
    if experts is not None and fixed:
        over = difference_interval(fixed_nll(experts.mean, fixed), figures.nll)
    return ContextRow(
        nll=mean_interval(figures.nll),
        nll_delta=difference_interval(base.nll, figures.nll),
        kl=mean_interval(figures.kl),
        top1_agreement=mean_interval(figures.same),
        ece=figures.ece,
        experts=experts,
        over_fixed=over,
    )


def fixed_nll(experts: float, fixed: Mapping[float, WindowFigures]) -> NDArray[np.float64]:
    """Return each window's NLL with as many experts for every token, [W].

    Between whole numbers k and k + 1 it is interpolated, as if windows were dealt to both at random
    in that proportion.

    Args:
        experts: a number of experts, whole or not.
        fixed: figures of fixed top-k, by k in ascending order; those on both sides are needed.
    """
    nll_WK = np.array([figures.nll for figures in fixed.values()]).T
    return np.array([np.interp(experts, list(fixed), nll_K) for nll_K in nll_WK])


def _row_dict(row: Row) -> dict[str, Any]:
    speed = row.speed_ratio
    return {
        "value": row.value,
        "is_base": row.is_base,
        "contexts": {name: _context_dict(each) for name, each in row.contexts.items()},
        "tokens_per_s": row.tokens_per_s,
        "speed_ratio": None if speed is None else speed.mean,
        "speed_ratio_interval": None if speed is None else speed.as_list(),
        "scale": row.scale,
    }


def _context_dict(row: ContextRow) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for key in ("nll", "nll_delta", "kl", "top1_agreement", "experts", "over_fixed"):
        interval = getattr(row, key)
        figures[key] = None if interval is None else interval.mean
        figures[f"{key}_interval"] = None if interval is None else interval.as_list()
    return {**figures, "ece": row.ece}
