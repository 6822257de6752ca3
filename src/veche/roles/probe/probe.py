"""A linear reading of features: what a fitted probe is, and how it scores.

Shapes: N texts or steps, F features, M labels, K rows of weights (1 for two labels, else M).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.experts.metrics import softmax

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Standardising, principal components, logistic regression and calibration, folded into one.

    All four are affine, and so is what they make together: z = W x + b. Two labels have one row:
    z is the log-odds of the second.

    Attributes:
        labels: M names; their order is that of the scores.
        weight: [K, F].
        bias: [K].
    """

    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse what no fit gives."""
        rows = 1 if len(self.labels) == 2 else len(self.labels)
        if len(self.labels) < 2 or self.weight.ndim != 2 or self.weight.shape[0] != rows:
            raise InputError(
                f"{len(self.labels)} labels need {rows} rows of weights, not {self.weight.shape}"
            )
        if self.bias.shape != (rows,):
            raise InputError(f"a bias of {self.bias.shape} does not fit {rows} rows of weights")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise InputError("a probe's weights are not finite numbers")

    def logits(self, features_NF: Floats) -> NDArray[np.float64]:
        """Return W x + b, [N, K].

        Raises:
            InputError: the features are not as many as the probe was fitted to.
        """
        if features_NF.shape[-1] != self.weight.shape[1]:
            raise InputError(
                f"{features_NF.shape[-1]} features were given to a probe of {self.weight.shape[1]}",
                hint="read the text with the layers that the probe names",
            )
        return np.asarray(features_NF, np.float64) @ self.weight.T + self.bias

    def scores(self, features_NF: Floats) -> NDArray[np.float64]:
        """Return the probability of each label, [N, M]."""
        return probabilities(self.logits(features_NF))

    @classmethod
    def fit(cls, features_NF: Floats, labels_N: Sequence[str], groups_N: Sequence[str]) -> "Probe":
        """Fit a probe with default settings; `fitting.fit_probe` tells more of it."""
        from veche.roles.probe.fitting import fit_probe

        return fit_probe(features_NF, labels_N, groups_N).probe


def probabilities(logits_NK: Floats) -> NDArray[np.float64]:
    """Return the softmax of K logits; of one, [1 − σ(z), σ(z)]."""
    if logits_NK.shape[-1] == 1:
        logits_NK = np.concatenate([np.zeros_like(logits_NK), logits_NK], axis=-1)
    return softmax(logits_NK)
