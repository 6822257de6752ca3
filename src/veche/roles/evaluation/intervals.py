"""How sure a figure is: bootstrap intervals that resample whole groups.

Shapes: N rows (answers, steps), G groups, R resamples. Answers to one question depend on each
other, so a question is what is resampled; its rows come together, or not at all.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from veche.experts.bootstrap import LEVEL, Interval

RESAMPLES = 1000
ENOUGH_GROUPS = 20
"""An interval over fewer groups is too narrow: it says more than they can tell."""
Rows = NDArray[np.int64]
Statistic = Callable[[Rows], float]
"""A figure of some rows, which may come more than once; NaN where they don't define it."""


def grouped_interval(
    statistic: Statistic,
    groups_N: Sequence[str],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a statistic of all rows, with its percentile bootstrap interval over groups.

    The ends are the (1 ∓ level)/2 quantiles over R samples of G groups, drawn with replacement.
    Samples for which the statistic is undefined (an AUROC of one class) are left out; where that is
    more than half of them, and where there is one group, the ends are NaN.

    Source: Davison, Hinkley, Bootstrap Methods and their Application (1997), section 3.8.

    Args:
        statistic: takes indices of rows.
        groups_N: the group that each row belongs to.
        level: how often the interval should cover the true value, in (0, 1).
        resamples: R.
        seed: of the resampling; the same seed draws the same groups for any statistic.

    Raises:
        ValueError: there are no rows, or the level is not in (0, 1).
    """
    if not len(groups_N) or not 0 < level < 1 or resamples < 1:
        raise ValueError(f"no interval of {len(groups_N)} rows at level {level}, R {resamples}")
    rows = _rows_of_groups(groups_N)
    mean = statistic(np.arange(len(groups_N)))
    if len(rows) == 1 or math.isnan(mean):
        return Interval(mean=mean, low=math.nan, high=math.nan)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(rows), size=len(rows)) for _ in range(resamples))
    figures_R = [statistic(np.concatenate([rows[group] for group in groups])) for groups in drawn]
    return _between(mean, np.asarray(figures_R), level)


def gain_interval(
    base: Statistic,
    other: Statistic,
    groups_N: Sequence[str],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return other − base of the same rows, with its interval.

    Both are taken of the same samples, so what makes a group hard for both cancels out.

    Args:
        base: the statistic of what is compared with.
        other: the same statistic of the other scores.
        groups_N: as in `grouped_interval`.
        level: as in `grouped_interval`.
        resamples: as in `grouped_interval`.
        seed: as in `grouped_interval`.
    """
    return grouped_interval(
        lambda rows: other(rows) - base(rows),
        groups_N,
        level=level,
        resamples=resamples,
        seed=seed,
    )


def same_group_pairs(
    score_N: ArrayLike,
    is_right_N: ArrayLike,
    groups_N: Sequence[str],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the share of right/wrong pairs within one group whose right one has the higher score.

    Σ_g Σ_{i right, j wrong, in g} [s_i > s_j] + ½ [s_i = s_j], over the number of such pairs: the
    AUROC that is left where the question is the same for both. NaN where no group has both.

    Args:
        score_N: higher the likelier right.
        is_right_N: whether each row is right.
        groups_N: as in `grouped_interval`.
        level: as in `grouped_interval`.
        resamples: as in `grouped_interval`.
        seed: as in `grouped_interval`.
    """
    score_N, is_right_N = np.asarray(score_N, np.float64), np.asarray(is_right_N, np.bool_)
    counts_G2 = np.array(
        [_pair_counts(score_N[rows], is_right_N[rows]) for rows in _rows_of_groups(groups_N)]
    )

    def share(groups: Rows) -> float:
        """Count a group that is drawn twice as two, not as one with more pairs."""
        won, pairs = counts_G2[groups].sum(0)
        return float(won / pairs) if pairs else math.nan

    names = [str(group) for group in range(len(counts_G2))]
    return grouped_interval(share, names, level=level, resamples=resamples, seed=seed)


def _pair_counts(score_n: NDArray[np.float64], is_right_n: NDArray[np.bool_]) -> tuple[float, int]:
    difference = score_n[is_right_n][:, None] - score_n[~is_right_n][None, :]
    return float((np.sign(difference) + 1).sum() / 2), difference.size


def _rows_of_groups(groups_N: Sequence[str]) -> list[Rows]:
    """Return the rows of each group, groups in the order of their names."""
    _, index_N, count_G = np.unique(
        np.asarray(groups_N, dtype=np.str_), return_inverse=True, return_counts=True
    )
    return np.split(np.argsort(index_N, kind="stable"), np.cumsum(count_G)[:-1])


def _between(mean: float, figures_R: NDArray[np.float64], level: float) -> Interval:
    known = figures_R[~np.isnan(figures_R)]
    if 2 * len(known) < len(figures_R):
        return Interval(mean=mean, low=math.nan, high=math.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=mean, low=float(low), high=float(high))
