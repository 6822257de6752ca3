"""Fit a probe: regularisation and calibration are chosen on groups that were left out.

Shapes: N texts or steps, F features, P principal components, M labels, K rows of weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.core.extras import require_extra
from veche.roles.probe.probe import Floats, Probe, probabilities

Rows = NDArray[np.int64]
Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weight [K, F] and bias [K]."""
_RARE = 0.1
_MOST_ITERATIONS = 2000
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a probe is fitted.

    Attributes:
        strengths: inverse strengths C of the L2 penalty to choose from.
        folds: of the cross-validation that chooses, and that the calibration is fitted on.
        components: the most principal components that features are reduced to.
        seed: of the folds and of the components.
    """

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    folds: int = 5
    components: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A probe, and what cross-validation told of it.

    Attributes:
        probe: fitted to everything, calibrated.
        held_out: [N, K], calibrated logits of each row by a probe that did not see its group.
        strength: the C that was chosen.
        log_loss: of it on groups that were left out, before calibration, in nats.
        calibration: scale and shift of the logits (Platt); shift is 0 with more than two labels.
    """

    probe: Probe
    held_out: NDArray[np.float64]
    strength: float
    log_loss: float
    calibration: tuple[float, float]


def fit_probe(
    features_NF: Floats,
    labels_N: Sequence[str],
    groups_N: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    settings: FitSettings | None = None,
) -> Fitted:
    """Fit a probe that tells labels apart.

    Features are standardised; where there are more of them than rows to learn from, or than
    `components`, their principal components stand for them. A class below a tenth of its fair share
    is weighed up. Scale and shift of the logits are then fitted to the rows' logits from when they
    were left out (Platt), so that confidence is what it says.

    Args:
        features_NF: a row for each text or step.
        labels_N: what each is.
        groups_N: rows of one group are never on both sides of a fold.
        labels: their order; sorted without it.
        settings: defaults without it.

    Raises:
        InputError: there are no rows, one label, too few groups, or a feature is not finite.
        MissingExtraError: scikit-learn is not installed.
    """
    require_extra("probe")
    settings = settings or FitSettings()
    names = tuple(labels) if labels is not None else tuple(sorted(set(labels_N)))
    features = np.asarray(features_NF, np.float64)
    target_N = _checked(features, labels_N, groups_N, names)
    folds = list(grouped_folds(groups_N, target_N, settings))
    held_out = np.stack(
        [
            _held_out(features, target_N, folds, len(names), settings, strength)
            for strength in settings.strengths
        ]
    )
    losses = [_log_loss(logits, target_N) for logits in held_out]
    best = int(np.argmin(losses))
    scale, shift = _platt(held_out[best], target_N)
    reduce = _reduction(features, settings)
    weight, bias = _regression(features, target_N, len(names), reduce, settings.strengths[best])
    return Fitted(
        probe=Probe(
            labels=names,
            weight=(scale * weight).astype(np.float32),
            bias=(scale * bias + shift).astype(np.float32),
        ),
        held_out=scale * held_out[best] + shift,
        strength=settings.strengths[best],
        log_loss=losses[best],
        calibration=(scale, shift),
    )
