"""How sure a mean is: percentile bootstrap intervals over independent pieces of text.

Legend: N pieces (windows, documents, prompts), R resamples. Tokens of one text depend on each
other, so a piece is what is resampled; a token never is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
RESAMPLES = 2000
_INDICES = 4 << 20
"""Indices in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean, and where it may lie.

    Attributes:
        mean: of the pieces.
        low: lower end; NaN where there is one piece, which says nothing of how they differ.
        high: upper end; NaN likewise.
    """

    mean: float
    low: float
    high: float

    @property
    def is_above_zero(self) -> bool:
        """Whether all of it is above 0."""
        return self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether all of it is below 0."""
        return self.high < 0

    def as_list(self) -> list[float]:
        """Return [low, high], as JSON has it."""
        return [self.low, self.high]


def mean_interval(
    values_N: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean of N independent values with its percentile bootstrap interval.

    The ends are the (1 ∓ level)/2 quantiles of the means of R samples of N, drawn with replacement.
    It is narrow for few pieces: at level 0.95 and normal values it covers the mean 92 times in a
    hundred for N = 16, and 88 times for N = 8 (tests/experts/test_bootstrap.py).

    Source: Efron, Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    Args:
        values_N: a value for each piece; NaN in one makes everything NaN.
        level: how often the interval should cover the mean, in (0, 1).
        resamples: R.
        seed: of the resampling; the same seed draws the same pieces for any values.

    Raises:
        ValueError: there is no value, or the level is not in (0, 1).
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    if values_N.ndim != 1 or not len(values_N) or not 0 < level < 1 or resamples < 1:
        raise ValueError(f"no interval of values {values_N.shape} at level {level}, R {resamples}")
    mean = float(values_N.mean())
    if len(values_N) == 1:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    means_R = _resampled(np.mean, values_N, resamples, seed)
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=mean, low=float(low), high=float(high))


def median_bounds(
    values_N: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median: of rounds of a clock, say.

    Args:
        values_N: as in `mean_interval`; NaN bounds where there is one.
        level: as in `mean_interval`.
        resamples: as in `mean_interval`.
        seed: as in `mean_interval`.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    if len(values_N) == 1:
        return math.nan, math.nan
    medians_R = _resampled(np.median, values_N, resamples, seed)
    low, high = np.quantile(medians_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference_interval(
    first_N: ArrayLike,
    second_N: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean of second − first over the same N pieces, with its interval.

    The pairs are resampled, so what makes a piece hard for both cancels out.

    Args:
        first_N: the base's value for each piece.
        second_N: the other's, of the same pieces in the same order.
        level: as in `mean_interval`.
        resamples: as in `mean_interval`.
        seed: as in `mean_interval`.

    Raises:
        ValueError: the two are not of the same pieces.
    """
    first_N, second_N = (np.asarray(each, dtype=np.float64) for each in (first_N, second_N))
    if first_N.shape != second_N.shape:
        raise ValueError(f"{first_N.shape} values cannot be paired with {second_N.shape}")
    return mean_interval(second_N - first_N, level=level, resamples=resamples, seed=seed)


def _resampled(
    statistic: Callable[..., Any], values_N: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return a statistic of R samples with replacement, some samples at a time."""
    rng, count = np.random.default_rng(seed), len(values_N)
    results_R = np.empty(resamples)
    step = max(1, _INDICES // count)
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), count)
        drawn_RN = values_N[rng.integers(0, count, size=size)]
        results_R[start : start + step] = statistic(drawn_RN, axis=-1)
    return results_R
