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
_ROUNDING = 1e-6


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
    held_out = _held_out(features, target_N, groups_N, len(names), settings)
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


def grouped_folds(
    groups_N: Sequence[str], target_N: Rows, settings: FitSettings
) -> Iterator[tuple[Rows, Rows]]:
    """Yield rows to learn from and rows that are left out; each group is left out once.

    Raises:
        InputError: there are fewer groups than two.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    num_groups = len(set(groups_N))
    if num_groups < 2:
        raise InputError(
            "a probe needs examples of at least two problems: one to learn from, one to check on",
            hint="give it more examples",
        )
    num_folds = min(settings.folds, num_groups)
    # A label of fewer rows than folds can't be in all of them.
    is_rare = np.unique(target_N, return_counts=True)[1].min() < num_folds
    kind = GroupKFold if is_rare else StratifiedGroupKFold
    folds = kind(n_splits=num_folds, shuffle=True, random_state=settings.seed)
    placeholder = np.zeros((len(target_N), 1))
    yield from folds.split(placeholder, target_N, np.asarray(groups_N, dtype=np.str_))


def _checked(
    features_NF: NDArray[np.float64],
    labels_N: Sequence[str],
    groups_N: Sequence[str],
    names: tuple[str, ...],
) -> Rows:
    """Return the number of each row's label."""
    if not len(features_NF):
        raise InputError("there is nothing to fit a probe to: no examples were given")
    if not len(features_NF) == len(labels_N) == len(groups_N):
        raise ValueError(f"{len(features_NF)} rows, {len(labels_N)} labels, {len(groups_N)} groups")
    if not np.isfinite(features_NF).all():
        row = int(np.flatnonzero(~np.isfinite(features_NF).all(-1))[0])
        raise InputError(f"the features of row {row} are not finite numbers")
    if len(set(labels_N)) < 2:
        raise InputError(
            f"all {len(labels_N)} examples are {labels_N[0]!r}: there is nothing to tell apart",
            hint="give it examples of another label too",
        )
    number = {name: index for index, name in enumerate(names)}
    if unknown := set(labels_N) - set(number):
        raise InputError(f"the label {min(unknown)!r} is none of {', '.join(names)}")
    return np.array([number[label] for label in labels_N], dtype=np.int64)


def _held_out(
    features_NF: NDArray[np.float64],
    target_N: Rows,
    groups_N: Sequence[str],
    num_labels: int,
    settings: FitSettings,
) -> NDArray[np.float64]:
    """Return each row's logits by fits that did not see its group, [strengths, N, K]."""
    num_rows = 1 if num_labels == 2 else num_labels
    logits = np.zeros((len(settings.strengths), len(target_N), num_rows))
    for seen, left_out in grouped_folds(groups_N, target_N, settings):
        if len(np.unique(target_N[seen])) < 2:
            raise InputError(
                "all examples of one label belong to one problem: there is nothing to check on",
                hint="give it more problems",
            )
        reduce = _reduction(features_NF[seen], settings)
        for index, strength in enumerate(settings.strengths):
            weight, bias = _regression(
                features_NF[seen], target_N[seen], num_labels, reduce, strength
            )
            logits[index, left_out] = features_NF[left_out] @ weight.T + bias
    return logits


def _reduction(features_NF: NDArray[np.float64], settings: FitSettings) -> Affine:
    """Return standardising, and principal components where there are many features, as R x + r."""
    from sklearn.decomposition import PCA

    mean_F, scale_F = features_NF.mean(0), features_NF.std(0)
    # What differs by rounding alone says nothing, and would be blown up to the size of the others.
    scale_F = np.where(scale_F > _TINY + _ROUNDING * np.abs(mean_F), scale_F, np.inf)
    num_rows, num_features = features_NF.shape
    most = min(settings.components, num_rows - 1)
    if num_features <= most or np.isinf(scale_F).all():
        return np.diag(1 / scale_F), -mean_F / scale_F
    pca = PCA(n_components=most, svd_solver="randomized", random_state=settings.seed)
    pca.fit((features_NF - mean_F) / scale_F)
    # Scaled as a whole, so that a penalty means the same for many features and for few.
    unit = np.sqrt(pca.explained_variance_.mean())
    weight_PF = pca.components_ / scale_F / unit
    return weight_PF, -weight_PF @ mean_F


def _regression(
    features_NF: NDArray[np.float64],
    target_N: Rows,
    num_labels: int,
    reduce: Affine,
    strength: float,
) -> Affine:
    """Return the logits of all labels as W x + b; one that was not seen gets the least."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    weight_PF, bias_P = reduce
    seen = np.unique(target_N)
    shares = np.bincount(target_N, minlength=num_labels)[seen] / len(target_N)
    is_rare = shares.min() < _RARE / len(seen)
    model = LogisticRegression(
        C=strength,
        class_weight="balanced" if is_rare else None,
        max_iter=_MOST_ITERATIONS,
    )
    # Thousands of products this small: threads would wait for each other at every one.
    with threadpool_limits(1):
        model.fit(features_NF @ weight_PF.T + bias_P, target_N)
    coef, intercept = model.coef_, model.intercept_
    if num_labels > 2:
        coef, intercept = _spread(coef, intercept, seen, num_labels)
    return coef @ weight_PF, coef @ bias_P + intercept


def _spread(
    coef: NDArray[np.float64], intercept: NDArray[np.float64], seen: Rows, num_labels: int
) -> Affine:
    """Give labels that a fold did not see a row: never the likeliest, and not of probability 0."""
    if len(seen) == 2:
        coef = np.concatenate([np.zeros_like(coef), coef])
        intercept = np.concatenate([np.zeros_like(intercept), intercept])
    whole = np.zeros((num_labels, coef.shape[1]))
    bias = np.full(num_labels, intercept.min() - 1)
    whole[seen], bias[seen] = coef, intercept
    return whole, bias


def _platt(logits_NK: NDArray[np.float64], target_N: Rows) -> tuple[float, float]:
    """Return scale and shift that make logits of left-out rows as sure as they are right.

    Two labels: logistic regression on the logit (Platt 1999). More: one temperature.
    """
    from scipy.optimize import minimize

    is_binary = logits_NK.shape[1] == 1

    def loss(both: NDArray[np.float64]) -> float:
        scale = float(np.exp(both[0]))
        return _log_loss(scale * logits_NK + (both[1] if is_binary else 0.0), target_N)

    found: Any = minimize(loss, np.zeros(2), method="Nelder-Mead")
    return float(np.exp(found.x[0])), float(found.x[1]) if is_binary else 0.0


def _log_loss(logits_NK: NDArray[np.float64], target_N: Rows) -> float:
    chosen_N = probabilities(logits_NK)[np.arange(len(target_N)), target_N]
    return float(-np.log(np.maximum(chosen_N, _TINY)).mean())
