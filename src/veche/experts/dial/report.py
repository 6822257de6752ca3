"""The dial's figures with their intervals: what was measured, resampled by windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from veche.experts.bootstrap import Interval, difference_interval, mean_interval, median_bounds
from veche.experts.dial.figures import Context, SettingFigures, WindowFigures
from veche.experts.dial.points import DialName


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRow:
    """One setting's predictions in one context; intervals are over windows, at 95 %.

    Attributes:
        nll: nats a token.
        nll_delta: against the base on the same tokens.
        kl: KL(base‖setting), nats a token.
        top1_agreement: share of tokens after which both would choose the same next one greedily.
        ece: expected calibration error.
        over_fixed: adaptive only: ΔNLL against fixed top-k at the same mean experts.
    """

    nll: Interval
    nll_delta: Interval
    kl: Interval
    top1_agreement: Interval
    ece: float
    over_fixed: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting.

    Attributes:
        value: of the dial.
        is_base: whether it is the checkpoint's own.
        contexts: the predictions in each context.
        tokens_per_s: of decode, median of the rounds; None where it was not measured.
        speed_ratio: median over rounds of base's seconds by this setting's, with its interval.
        experts: adaptive only: mean experts a token.
        scale: adaptive only: the factor of exp(H).
    """

    value: float
    is_base: bool
    contexts: Mapping[Context, ContextRow]
    tokens_per_s: float | None = None
    speed_ratio: Interval | None = None
    experts: Interval | None = None
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
        low, high = median_bounds(ratio_R)
        speed = Interval(mean=float(np.median(ratio_R)), low=low, high=high)
    experts = mean_interval(figures.experts) if figures.experts else None
    return Row(
        value=figures.value,
        is_base=figures is base,
        contexts={
            name: _context_row(
                each, base.contexts[name], _fixed_nll(name, experts, fixed) if fixed else None
            )
            for name, each in figures.contexts.items()
        },
        tokens_per_s=new_tokens / float(np.median(figures.turned_s)) if speed else None,
        speed_ratio=speed,
        experts=experts,
        scale=figures.scale,
    )


def _context_row(
    figures: WindowFigures, base: WindowFigures, fixed_nll_W: "np.ndarray[Any, Any] | None"
) -> ContextRow:
    over = None if fixed_nll_W is None else difference_interval(fixed_nll_W, figures.nll)
    return ContextRow(
        nll=mean_interval(figures.nll),
        nll_delta=difference_interval(base.nll, figures.nll),
        kl=mean_interval(figures.kl),
        top1_agreement=mean_interval(figures.same),
        ece=figures.ece,
        over_fixed=over,
    )


def _fixed_nll(
    context: Context, experts: Interval | None, fixed: Sequence[SettingFigures]
) -> "np.ndarray[Any, Any]":
    """Return each window's NLL with fixed top-k at the adaptive one's mean experts, [W].

    Between two whole numbers it is interpolated, as if tokens were dealt to both at random.
    """
    assert experts is not None  # noqa: S101  # an adaptive setting has them
    ks = [each.value for each in fixed]
    nll_KW = np.array([each.contexts[context].nll for each in fixed])
    return np.array([np.interp(experts.mean, ks, nll_K) for nll_K in nll_KW.T])


def _row_dict(row: Row) -> dict[str, Any]:
    speed = row.speed_ratio
    return {
        "value": row.value,
        "is_base": row.is_base,
        "contexts": {name: _context_dict(each) for name, each in row.contexts.items()},
        "tokens_per_s": row.tokens_per_s,
        "speed_ratio": None if speed is None else speed.mean,
        "speed_ratio_interval": None if speed is None else speed.as_list(),
        "experts": None if row.experts is None else row.experts.mean,
        "experts_interval": None if row.experts is None else row.experts.as_list(),
        "scale": row.scale,
    }


def _context_dict(row: ContextRow) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for key in ("nll", "nll_delta", "kl", "top1_agreement", "over_fixed"):
        interval = getattr(row, key)
        figures[key] = None if interval is None else interval.mean
        figures[f"{key}_interval"] = None if interval is None else interval.as_list()
    return {**figures, "ece": row.ece}
