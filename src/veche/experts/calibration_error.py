"""How far a model's confidence is from how often it is right."""

import numpy as np
from numpy.typing import ArrayLike

BINS = 15


def calibration_error(confidence_N: ArrayLike, is_right_N: ArrayLike, *, bins: int = BINS) -> float:
    """Return the expected calibration error, Σ_b n_b/N · |accuracy_b − confidence_b|, in [0, 1].

    Bin b of B holds the predictions with confidence in ((b − 1)/B, b/B].

    Source: Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), eq. 3.

    Args:
        confidence_N: probability of the likeliest token, for each prediction.
        is_right_N: whether it was the token that followed.
        bins: B.
    """
    confidence_N = np.asarray(confidence_N, dtype=np.float64)
    gap_N = np.asarray(is_right_N, dtype=np.float64) - confidence_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps_B = np.bincount(bin_N, weights=gap_N, minlength=bins)
    return float(np.abs(gaps_B).sum() / len(confidence_N))
