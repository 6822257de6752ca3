"""How sure a share of right answers is."""

import math

from veche.experts.bootstrap import Interval

Z_95 = 1.959963984540054
"""The normal distribution's 97.5th percentile."""


def wilson_interval(right: int, total: int, *, z: float = Z_95) -> Interval:
    """Return a share k/n with Wilson's interval.

    (p + z²/2n ∓ z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n), p = k/n: all shares that k of n would not
    contradict. It holds for few trials and for shares near 0 and 1, unlike p ∓ z·√(p(1 − p)/n).

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927), 209–212.

    Args:
        right: k, in 0..n.
        total: n; independent trials.
        z: of the level.

    Raises:
        ValueError: k is not in 0..n, or n is 0.
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"{right} of {total} is no share")
    p = right / total
    centre = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At k = 0 and k = n an end is p itself, which rounding must not miss.
    return Interval(
        mean=p,
        low=min(p, max(0.0, (centre - half) / scale)),
        high=max(p, min(1.0, (centre + half) / scale)),
    )
