"""Which step is the first wrong one, if any. Shapes: S steps."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def first_wrong(hazard_S: ArrayLike) -> NDArray[np.float64]:
    """Return the probability that each step is the first wrong one, and that none is, [S + 1].

    With h_i = P(step i is wrong | all before it are right), P(i) = h_i · Π_{j<i} (1 − h_j), and
    P(none) = Π_j (1 − h_j): the survival function of a discrete hazard. They add up to 1.

    Args:
        hazard_S: h, in [0, 1].
    """
    hazard = np.asarray(hazard_S, np.float64)
    survived = np.concatenate([[1.0], np.cumprod(1 - hazard)])
    return np.concatenate([hazard * survived[:-1], survived[-1:]])


def first_wrong_step(hazard_S: ArrayLike) -> int | None:
    """Return the likeliest first wrong step; None where that none is wrong is likelier."""
    chances = first_wrong(hazard_S)
    best = int(chances.argmax())
    return None if best == len(chances) - 1 else best
