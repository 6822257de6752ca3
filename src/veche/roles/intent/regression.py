"""Softmax regression on many features: which intent, from what was seen inside the model.

Shapes: N questions, F features, K intents.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.experts.metrics import softmax

Floats = NDArray[np.floating]
PENALTY = 1e-7
STEPS = 80
"""Of L-BFGS: stopping there is part of the regularisation, and later ones change little."""
_TINY = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearScores:
    """A score for each intent, W x + b.

    Attributes:
        weight: [K, F].
        bias: [K].
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, features_NF: Floats) -> NDArray[np.float64]:
        """Return W x + b, [N, K]."""
        return np.asarray(features_NF @ self.weight.T + self.bias, np.float64)


def fit_softmax(
    features_NF: NDArray[np.float32],
    label_N: NDArray[np.int64],
    *,
    penalty: float = PENALTY,
    steps: int = STEPS,
) -> LinearScores:
    """Fit a softmax regression by L-BFGS, from zero.

    It minimises mean_n −ln softmax(W z_n + b)[y_n] + penalty · ‖W‖² over z, the features
    standardised and divided by √F, so that a penalty means the same for many of them and for few.

    Args:
        features_NF: a row for each question.
        label_N: the number of its intent, 0 to K − 1.
        penalty: of the squared weights.
        steps: of L-BFGS, at most.
    """
    from scipy.optimize import minimize

    num_rows, num_features = features_NF.shape
    num_labels = int(label_N.max()) + 1
    centre_F = features_NF.mean(0)
    scale_F = (features_NF.std(0) + _TINY) * np.float32(num_features**0.5)
    z_NF = (features_NF - centre_F) / scale_F
    rows = np.arange(num_rows)

    def loss_and_slope(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss at W and b, and its gradient."""
        weight, bias = flat[:-num_labels].reshape(num_labels, -1), flat[-num_labels:]
        chance_NK = softmax(z_NF @ weight.T.astype(np.float32) + bias.astype(np.float32))
        loss = -np.log(np.maximum(chance_NK[rows, label_N], 1e-30)).mean()
        chance_NK[rows, label_N] -= 1
        error_NK = (chance_NK / num_rows).astype(np.float32)
        slope = (error_NK.T @ z_NF).astype(np.float64) + 2 * penalty * weight
        slopes = np.concatenate([slope.ravel(), error_NK.sum(0, dtype=np.float64)])
        return float(loss + penalty * np.sum(weight**2)), slopes

    start = np.zeros(num_labels * (num_features + 1))
    found = minimize(
        loss_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": steps}
    ).x
    weight = found[:-num_labels].reshape(num_labels, -1) / scale_F
    bias = found[-num_labels:] - weight @ centre_F
    return LinearScores(weight=weight.astype(np.float32), bias=bias.astype(np.float32))
