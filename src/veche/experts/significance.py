"""Whether a difference in routing is more than chance: permutations of whole documents.

Tokens of one document depend on each other, so shuffling labels token by token finds nearly
everything significant. Here the unit that is shuffled is the document.

Shapes: D documents, M measured things (an expert of a layer each), P permutations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Design = Literal["within documents", "between documents"]
NUM_PERMUTATIONS = 9_999
SIGNIFICANCE = 0.05
_CHUNK = 500
_TOLERANCE = 1e-12
"""Statistics that differ by less are equal: sums in another order round otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How often experts are active in one group of tokens, and in the rest.

    Attributes:
        design: what was shuffled. "within documents": documents have tokens of both, and for each
            the two change places or not. "between documents": each document is of one group, and
            the groups are dealt out anew.
        rate: [M], share of the group's tokens that each expert was active for.
        rest: [M], the same of the other tokens.
        p_values: [M], two-sided.
        num_documents: that were compared; in the group, where it was between documents.
        num_others: documents of the rest; as many as `num_documents` within documents.
        smallest_p: below which no p-value can come with so few documents.
    """

    design: Design
    rate: Floats
    rest: Floats
    p_values: Floats
    num_documents: int
    num_others: int
    smallest_p: float


def difference(
    inside_DM: NDArray[np.integer],
    inside_tokens_D: NDArray[np.integer],
    outside_DM: NDArray[np.integer],
    outside_tokens_D: NDArray[np.integer],
    *,
    seed: int = 0,
    num_permutations: int = NUM_PERMUTATIONS,
) -> Difference | None:
    """Compare a group's tokens with the rest, document by document.

    Args:
        inside_DM: in each document, for how many of the group's tokens each expert was active.
        inside_tokens_D: how many tokens of the group each document has.
        outside_DM: the same of the rest.
        outside_tokens_D: the same of the rest.
        seed: of the permutations.
        num_permutations: that are drawn; p-values are multiples of 1 / (num_permutations + 1).

    Returns:
        None where no two documents can be compared.
    """
    has_both_D = (inside_tokens_D > 0) & (outside_tokens_D > 0)
    rng = np.random.default_rng(seed)
    if has_both_D.any():
        return _within(
            inside_DM[has_both_D] / inside_tokens_D[has_both_D, None],
            outside_DM[has_both_D] / outside_tokens_D[has_both_D, None],
            rng,
            num_permutations,
        )
    counts_DM, tokens_D = inside_DM + outside_DM, inside_tokens_D + outside_tokens_D
    is_told_D = tokens_D > 0
    is_inside_D = (inside_tokens_D > 0)[is_told_D]
    if not is_inside_D.any() or is_inside_D.all():
        return None
    return _between(
        counts_DM[is_told_D].astype(np.float64),
        tokens_D[is_told_D].astype(np.float64),
        is_inside_D,
        rng,
        num_permutations,
    )


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Return adjusted p-values of any shape: min over ranks j ≥ i of p_(j)·m/j, at most 1.

    Those below q are, at a false discovery rate of q, discoveries.
    Source: Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995).
    """
    flat = p_values.ravel()
    order = np.argsort(flat)
    ranks = np.arange(1, len(flat) + 1)
    raised = flat[order] * len(flat) / ranks
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1)
    return adjusted.reshape(p_values.shape)


def needed_together(smallest_p: float, num_tests: int) -> int:
    """Return how many tests must reach `smallest_p` for any of them to be significant.

    With few documents no p-value is small, and a lone one cannot pass the correction for so many
    tests. More than `num_tests` means that nothing can be found.
    """
    # Nine digits: 0.05 has no exact binary form, and a bare ceil would count one too many.
    return ceil(round(smallest_p * num_tests / SIGNIFICANCE, 9))


def _within(
    inside_DM: Floats, outside_DM: Floats, rng: np.random.Generator, num_permutations: int
) -> Difference:
    """Flip the signs of the documents' differences; the statistic is their mean."""
    differences_DM = inside_DM - outside_DM
    num_documents = len(differences_DM)

    def draw(num: int) -> Floats:
        signs_PD = rng.choice([-1.0, 1.0], (num, num_documents))
        return signs_PD @ differences_DM / num_documents

    return Difference(
        design="within documents",
        rate=inside_DM.mean(0),
        rest=outside_DM.mean(0),
        p_values=_p_values(draw, differences_DM.mean(0), num_permutations),
        num_documents=num_documents,
        num_others=num_documents,
        smallest_p=max(1 / (num_permutations + 1), 2.0 ** (1 - num_documents)),
    )


def _between(
    counts_DM: Floats,
    tokens_D: Floats,
    is_inside_D: NDArray[np.bool_],
    rng: np.random.Generator,
    num_permutations: int,
) -> Difference:
    """Deal the groups out anew; the statistic is the difference of the groups' rates."""
    all_M, all_tokens = counts_DM.sum(0), tokens_D.sum()

    def rates(is_inside_PD: Floats) -> tuple[Floats, Floats]:
        inside_PM, tokens_P1 = is_inside_PD @ counts_DM, (is_inside_PD @ tokens_D)[:, None]
        return inside_PM / tokens_P1, (all_M - inside_PM) / (all_tokens - tokens_P1)

    def draw(num: int) -> Floats:
        dealt_PD = rng.permuted(np.tile(is_inside_D.astype(np.float64), (num, 1)), axis=1)
        rate_PM, rest_PM = rates(dealt_PD)
        return rate_PM - rest_PM

    rate_1M, rest_1M = rates(is_inside_D.astype(np.float64)[None])
    num_inside = int(is_inside_D.sum())
    # With two equal groups every deal has a mirror image, which is as far from zero.
    mirrors = 2 if 2 * num_inside == len(is_inside_D) else 1
    smallest = mirrors / comb(len(is_inside_D), num_inside)
    return Difference(
        design="between documents",
        rate=rate_1M[0],
        rest=rest_1M[0],
        p_values=_p_values(draw, (rate_1M - rest_1M)[0], num_permutations),
        num_documents=num_inside,
        num_others=len(is_inside_D) - num_inside,
        smallest_p=max(1 / (num_permutations + 1), smallest),
    )


def _p_values(draw: Callable[[int], Floats], observed_M: Floats, num_permutations: int) -> Floats:
    """Return (1 + how many draws are as far from zero as what was observed) / (1 + draws).

    Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010): never zero, never too small.
    """
    as_far_M = np.zeros(observed_M.shape, np.int64)
    left = num_permutations
    while left:
        num = min(left, _CHUNK)
        as_far_M += (np.abs(draw(num)) >= np.abs(observed_M) - _TOLERANCE).sum(0)
        left -= num
    return np.asarray((1 + as_far_M) / (1 + num_permutations))
