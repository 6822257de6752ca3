"""Which experts one set of texts is sent to more often than another.

Shapes: N texts of a set, L layers that route, E experts, M = L·E of all layers, R resamples.
Texts are resampled or dealt out anew, tokens never: the tokens of one text depend on each other,
and taken for independent they would find nearly everything significant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.experts.bootstrap import LEVEL, RESAMPLES
from veche.experts.significance import (
    NUM_PERMUTATIONS,
    SIGNIFICANCE,
    benjamini_hochberg,
    difference,
    needed_together,
)

Floats = NDArray[np.float64]
_FEWEST_TEXTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """How often each text's tokens were sent to each expert.

    Attributes:
        counts: [N, L, E], tokens of a text for which an expert was active.
        num_tokens: [N].
    """

    counts: NDArray[np.int64]
    num_tokens: NDArray[np.int64]

    @property
    def rates(self) -> Floats:
        """Return p = Σ_n counts / Σ_n tokens, [L, E]: the share of all tokens."""
        return np.asarray(self.counts.sum(0) / self.num_tokens.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """The risk difference of every expert: how much more often one set's tokens go there.

    Attributes:
        rate_for: [L, E], share of the tokens of the set to steer for.
        rate_against: [L, E], the same of the set to steer against.
        low: [L, E], lower end of the difference's 95 % bootstrap interval, expert by expert.
        high: [L, E], upper end.
        q_values: [L, E], adjusted for asking of all L·E experts at once (Benjamini-Hochberg).
        smallest_p: below which no p-value can come with so few texts.
        num_for: texts of the set to steer for.
        num_against: texts of the set to steer against.
    """

    rate_for: Floats
    rate_against: Floats
    low: Floats
    high: Floats
    q_values: Floats
    smallest_p: float
    num_for: int
    num_against: int

    @property
    def difference(self) -> Floats:
        """Return Δ = p_for − p_against, [L, E], in [−1, 1]."""
        return self.rate_for - self.rate_against

    @property
    def is_significant(self) -> NDArray[np.bool_]:
        """Return which experts differ at a false discovery rate of 5 %, [L, E]."""
        return self.q_values < SIGNIFICANCE

    @property
    def needed_together(self) -> int:
        """How many experts must differ as clearly as so few texts allow, for any to count."""
        return needed_together(self.smallest_p, self.q_values.size)


def contrast(for_: Activations, against: Activations, *, seed: int = 0) -> Contrast:
    """Compare two sets of texts, expert by expert.

    The difference is that of SteerMoE (arXiv 2509.09660): Δ = A_for/N_for − A_against/N_against,
    with A the tokens that an expert was active for and N all tokens. P-values come from dealing
    the texts out anew to two sets of the same sizes.

    Args:
        for_: of the set to steer for.
        against: of the set to steer against.
        seed: of resamples and permutations.

    Raises:
        InputError: a set has fewer than two texts, which say nothing of how texts differ.
    """
    for name, side in (("for", for_), ("against", against)):
        if len(side.num_tokens) < _FEWEST_TEXTS:
            raise InputError(
                f"the set to steer {name} has {len(side.num_tokens)} text to find experts with",
                hint="give at least 8 texts a set; 30 and more find weaker differences",
            )
    shape = for_.counts.shape[1:]
    low, high = _interval(for_, against, seed)
    found = _shuffled(for_, against, seed)
    return Contrast(
        rate_for=for_.rates,
        rate_against=against.rates,
        low=low,
        high=high,
        q_values=benjamini_hochberg(found[0]).reshape(shape),
        smallest_p=found[1],
        num_for=len(for_.num_tokens),
        num_against=len(against.num_tokens),
    )


def basis_of(found: Contrast, *, most: int, rows: Sequence[int] | None = None) -> Floats:
    """Return what a strength of 1 nat adds to each expert's logit, [L, E], in [−1, 1].

    The `most` experts with the largest |Δ| among those that differ significantly get Δ divided by
    the largest |Δ| of them, so favoured ones are positive and muted ones negative; all others 0.

    Args:
        found: the contrast.
        most: how many experts at most.
        rows: layers that may be steered; all by default.

    Raises:
        InputError: no expert differs significantly.
    """
    is_allowed = found.is_significant.copy()
    if rows is not None:
        is_allowed[[row for row in range(len(is_allowed)) if row not in rows]] = False
    if not is_allowed.any():
        raise InputError(_nothing(found), hint="give more texts, or texts that differ more clearly")
    size = np.where(is_allowed, np.abs(found.difference), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[: min(most, int(is_allowed.sum()))]
    basis = np.zeros(found.difference.shape)
    basis.flat[order] = found.difference.flat[order]
    return np.asarray(basis / np.abs(basis).max())


def _nothing(found: Contrast) -> str:
    said = (
        f"none of the {found.q_values.size} experts differs between {found.num_for} and "
        f"{found.num_against} texts at a false discovery rate of {SIGNIFICANCE:.0%}"
    )
    if found.needed_together > 1:
        said += (
            f"; with so few texts no p-value is below {found.smallest_p:.2g}, so that "
            f"{found.needed_together} experts would have to differ that clearly at once"
        )
    return said


def _interval(for_: Activations, against: Activations, seed: int) -> tuple[Floats, Floats]:
    """Return the percentile bootstrap interval of Δ: both sets are drawn anew, text by text."""
    rng = np.random.default_rng(seed)
    gap_RM = _resampled_rates(for_, rng) - _resampled_rates(against, rng)
    low, high = np.quantile(gap_RM, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    shape = for_.counts.shape[1:]
    return low.reshape(shape), high.reshape(shape)


def _resampled_rates(side: Activations, rng: np.random.Generator) -> Floats:
    num_texts = len(side.num_tokens)
    times_RN = rng.multinomial(num_texts, np.full(num_texts, 1 / num_texts), size=RESAMPLES)
    counts_NM = side.counts.reshape(num_texts, -1).astype(np.float64)
    return np.asarray((times_RN @ counts_NM) / (times_RN @ side.num_tokens)[:, None])


def _shuffled(for_: Activations, against: Activations, seed: int) -> tuple[Floats, float]:
    """Return p-values [M] and the smallest that so few texts allow."""
    sides = (for_, against)
    counts_NM = np.concatenate([side.counts.reshape(len(side.counts), -1) for side in sides])
    tokens_N = np.concatenate([side.num_tokens for side in sides])
    is_for_N = np.arange(len(tokens_N)) < len(for_.num_tokens)
    found = difference(
        counts_NM * is_for_N[:, None],
        tokens_N * is_for_N,
        counts_NM * ~is_for_N[:, None],
        tokens_N * ~is_for_N,
        seed=seed,
        # So many that one expert alone can pass the correction for all, if the texts allow it.
        num_permutations=max(NUM_PERMUTATIONS, ceil(2 * counts_NM.shape[1] / SIGNIFICANCE)),
    )
    if found is None:
        raise InputError("a set to steer with has no tokens", hint="give it texts")
    return found.p_values, found.smallest_p
