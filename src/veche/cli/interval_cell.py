"""How a figure with its interval stands in a table."""

import math

from veche.experts.bootstrap import Interval


def interval_cell(interval: Interval | None, form: str, *, between: str = "\n") -> str:
    """Return the mean and its interval, which is left out where it is undefined.

    Args:
        interval: None is told as a dash.
        form: of each number, as `format` takes it.
        between: what stands between the mean and the interval.
    """
    if interval is None:
        return "–"
    mean, low, high = (format(x, form) for x in (interval.mean, interval.low, interval.high))
    return mean if math.isnan(interval.low) else f"{mean}{between}[{low}, {high}]"
