"""Is a new part of a network still asleep: equations on weights.

A part (a head, a hidden unit, an expert) adds out·f(in·x) to the residual stream. It is *silent*
while its output weights are next to nothing, and a *twin* while its input weights are those of an
old part: then f(in·x) is the same for both, so the two are one part whose output weights are
(out + out'), and the network computes nothing that it could not without. Two experts with the same
input weights are twins if they are always chosen together (the same router row), or if it makes no
difference which of them is (the same output weights). These are the ways in which growth that
preserves the function adds parts: Net2Net, arXiv 1511.05641; zeros as in arXiv 2401.02415.

Shapes: N new parts, O old parts, W weights of a part.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
AWAKE, SILENT, TWIN = 0, 1, 2
"""States of a part."""
THRESHOLD = 0.01
"""Of a norm or a distance, relative to old parts: below it a part is asleep.

Growth leaves exactly 0; one step of Adam at a learning rate of 1e-5 moves a weight of the usual
0.02 by 5e-4 of it; what one per cent of an old part's norm adds is far below what old parts add.
"""


def column_norms(matrix: Floats) -> NDArray[np.float64]:
    """Return the L2 norm of each column."""
    wide = np.asarray(matrix, np.float32)
    return np.asarray(np.sqrt(np.einsum("rc,rc->c", wide, wide, dtype=np.float64)))


def is_silent(norms: Floats, reference: float, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Return which norms of output weights are at most `threshold` of the median old part's."""
    return np.asarray(norms <= threshold * reference)


def squared_distances(new_NW: Floats, old_OW: Floats) -> NDArray[np.float64]:
    """Return Σ_w (new − old)² of every pair, [N, O], from the differences themselves.

    ‖a‖² − 2a·b + ‖b‖² would round the distance of near twins to noise.
    """
    distances = np.empty((len(new_NW), len(old_OW)))
    old = np.asarray(old_OW, np.float32)
    for row, part in enumerate(np.asarray(new_NW, np.float32)):
        difference = old - part
        distances[row] = np.einsum("ow,ow->o", difference, difference, dtype=np.float64)
    return distances


def nearest_distance(new_NW: Floats, old_OW: Floats) -> NDArray[np.float64]:
    """Return min_o ‖new − old_o‖ / ‖old_o‖, [N]; ∞ where there is no old part.

    The nearest by ‖a‖² − 2a·b + ‖b‖² is looked at closely, in case rounding hides that it is a
    twin.
    """
    if not len(old_OW):
        return np.full(len(new_NW), np.inf)
    new, old = np.asarray(new_NW, np.float32), np.asarray(old_OW, np.float32)
    rough_NO = (old * old).sum(-1)[None] - 2 * new @ old.T
    nearest_N = rough_NO.argmin(-1)
    difference = np.linalg.norm(new - old[nearest_N], axis=-1)
    return relative(difference, np.linalg.norm(old[nearest_N], axis=-1))


def twin_distance(
    *, router: tuple[Floats, Floats], inputs: tuple[Floats, Floats], outputs: tuple[Floats, Floats]
) -> float:
    """Return max(d(inputs), min(d(router), d(outputs))) of a new expert and an old one.

    d(new, old) = ‖new − old‖ / ‖old‖.
    """

    def apart(pair: tuple[Floats, Floats]) -> float:
        new, old = pair
        return float(relative(float(np.linalg.norm(new - old)), float(np.linalg.norm(old))))

    return max(apart(inputs), min(apart(router), apart(outputs)))


def relative(distances: Floats | float, norms: Floats | float) -> NDArray[np.float64]:
    """Return distances / norms; 0/0 is 0, since parts without weights are alike."""
    wide = np.asarray(distances, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(wide == 0, 0.0, wide / norms)
