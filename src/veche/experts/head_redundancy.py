"""How many heads a layer really has: equations on the similarity of its heads.

Shapes: L layers, H heads. A similarity [L, H, H] is a mean of cosines, so it is symmetric, has no
negative eigenvalue; its diagonal is 1, or 0 for a head that never added anything.
"""

import numpy as np
from numpy.typing import NDArray

from veche.experts.metrics import entropy

Floats = NDArray[np.floating]


def effective_heads(similarity_LHH: Floats) -> NDArray[np.float64]:
    """Return exp(−Σ_i λ_i ln λ_i) of the eigenvalues λ of similarity / its trace, [L].

    H heads that have nothing in common count H; copies of one count 1 together, and so do heads
    that always cancel; silent ones count nothing. 0 where all are silent.

    Source: the Vendi score, Friedman and Dieng, arXiv 2210.02410.
    """
    similarity = np.asarray(similarity_LHH, np.float64)
    eigenvalues = np.linalg.eigvalsh(similarity).clip(min=0)
    trace = eigenvalues.sum(-1, keepdims=True)
    counts = np.exp(entropy(eigenvalues / np.where(trace > 0, trace, 1)))
    return np.asarray(np.where(trace[:, 0] > 0, counts, 0.0))


def nearest_heads(similarity_LHH: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which other head of its layer each is most like, by |cos|, [L, H]; and that cosine.

    A head alone in its layer has itself, with 0.
    """
    similarity = np.array(similarity_LHH, np.float64)
    num_heads = similarity.shape[-1]
    similarity[:, np.arange(num_heads), np.arange(num_heads)] = 0
    nearest = np.abs(similarity).argmax(-1)
    return nearest, np.take_along_axis(similarity, nearest[..., None], axis=-1)[..., 0]
