"""Two recordings, layer by layer: other roles, other prompts, or a model before and after a change.

Shapes: T tokens, L layers that route, k active experts a token, E experts, D documents, M = L·E.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.experts import metrics
from veche.experts.recording import Recording, joined
from veche.experts.significance import (
    NUM_PERMUTATIONS,
    Difference,
    benjamini_hochberg,
    difference,
)
from veche.experts.specialisation import counted

Floats = NDArray[np.float64]
_LAYER_PERMUTATIONS = 999


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two recordings differ.

    Attributes:
        first: the first recording; documents that both have are compared with each other.
        second: the second one.
        js: [L], Jensen–Shannon divergence of the loads, 0–1.
        null_js: [L], what it would be on average if the two were one: noise is never 0.
        js_p: [L], p-values of `js`, after Benjamini and Hochberg over layers.
        overlap: experts that a token of one shares with a token of the other, a share of k.
        first_overlap: the same within the first, its yardstick.
        second_overlap: the same within the second.
        saturation: [L], experts that the *same* token shares, a share of k; None where the two
            have no text in common token for token.
        num_same_tokens: that `saturation` is of.
        experts: each expert's activation rate in both, and whether it changed; None where too few
            documents tell.
        adjusted: [L, E], its p-values after Benjamini and Hochberg.
    """

    first: Recording
    second: Recording
    js: Floats
    null_js: Floats
    js_p: Floats
    overlap: float
    first_overlap: float
    second_overlap: float
    saturation: Floats | None
    num_same_tokens: int
    experts: Difference | None
    adjusted: Floats | None


def compare(
    first: Recording,
    second: Recording,
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compare two recordings.

    Raises:
        InputError: they are of different shapes, or one has no tokens.
    """
    _require_comparable(first, second)
    counts_2DM, tokens_2D = _counted(first, second)
    shape = (first.num_layers, first.num_experts)
    experts = difference(
        counts_2DM[1], tokens_2D[1], counts_2DM[0], tokens_2D[0],
        seed=seed, num_permutations=num_permutations,
    )  # fmt: skip
    js, null_js, js_p = _js(counts_2DM, tokens_2D, shape, seed)
    same = _same_tokens(first, second)
    ids = first.expert_ids, second.expert_ids
    return Comparison(
        first=first,
        second=second,
        js=js,
        null_js=null_js,
        js_p=js_p,
        overlap=metrics.overlap(*ids, first.num_experts),
        first_overlap=metrics.self_overlap(ids[0], first.num_experts),
        second_overlap=metrics.self_overlap(ids[1], first.num_experts),
        saturation=None if same is None else metrics.saturation(*same),
        num_same_tokens=0 if same is None else len(same[0]),
        experts=experts,
        adjusted=None if experts is None else benjamini_hochberg(experts.p_values).reshape(shape),
    )


def _require_comparable(first: Recording, second: Recording) -> None:
    for name in ("num_layers", "num_experts"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs and first.num_tokens and second.num_tokens:
            raise InputError(
                f"the two have {ours} and {theirs} {name.removeprefix('num_')}, so their experts "
                "have no common numbers",
                hint="of a grown model and its base: --grown FOLDER",
            )
    if not (first.num_tokens and second.num_tokens):
        raise InputError("one of the two recordings has no tokens")


def _counted(first: Recording, second: Recording) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Count both as one recording of two groups; a document that both have is one document."""
    both = joined([_bare(first), _bare(second)])
    groups_T = np.repeat([0, 1], [first.num_tokens, second.num_tokens])
    return counted(both, groups_T, 2)


def _bare(recording: Recording) -> Recording:
    """Return it without what need not be joined."""
    return replace(recording, token_ids=None, token_classes=None, weights=None, router_logits=None)


def _js(
    counts_2DM: NDArray[np.int32], tokens_2D: NDArray[np.int64], shape: tuple[int, int], seed: int
) -> tuple[Floats, Floats, Floats]:
    """Return JS of the loads by layer, its mean under permutations, and adjusted p-values."""
    counts = counts_2DM.astype(np.float64)
    deal = _dealer(tokens_2D, np.random.default_rng(seed))

    def divergence(is_second_2D: Floats) -> Floats:
        """Take from each side and document the given share for the second voice."""
        second_M = (is_second_2D[..., None] * counts).sum((0, 1))
        first_M = counts.sum((0, 1)) - second_M
        return metrics.js_divergence(
            metrics.load(first_M.reshape(shape)), metrics.load(second_M.reshape(shape))
        )

    as_it_is = np.stack([np.zeros(tokens_2D.shape[1]), np.ones(tokens_2D.shape[1])])
    observed = divergence(as_it_is)
    drawn = np.array([divergence(deal()) for _ in range(_LAYER_PERMUTATIONS)])
    as_far = (drawn >= observed - 1e-12).sum(0)
    return observed, drawn.mean(0), benjamini_hochberg((1 + as_far) / (1 + len(drawn)))


def _dealer(tokens_2D: NDArray[np.int64], rng: np.random.Generator) -> Callable[[], Floats]:
    """Return a function that deals sides out anew, as `significance.difference` does.

    Documents that both have change sides or not; if there are none, documents are shuffled.
    """
    has_both_D = (tokens_2D[0] > 0) & (tokens_2D[1] > 0)
    is_second_D = (tokens_2D[1] > 0).astype(np.float64)

    def swapped() -> Floats:
        swaps_D = np.where(has_both_D, rng.integers(0, 2, len(has_both_D)), 0).astype(np.float64)
        return np.stack([swaps_D, 1 - swaps_D])

    def shuffled() -> Floats:
        dealt_D = rng.permutation(is_second_D)
        return np.stack([dealt_D, dealt_D])

    return swapped if has_both_D.any() else shuffled


def _same_tokens(
    first: Recording, second: Recording
) -> tuple[NDArray[np.integer], NDArray[np.integer]] | None:
    """Return the expert ids of the records that both have, token for token."""
    if first.token_ids is None or second.token_ids is None or first.top_k != second.top_k:
        return None
    ours, theirs = _texts(first), _texts(second)
    same = [text for text in ours if text in theirs]
    if not same:
        return None
    return (
        np.concatenate([first.expert_ids[ours[text]] for text in same]),
        np.concatenate([second.expert_ids[theirs[text]] for text in same]),
    )


def _texts(recording: Recording) -> dict[tuple[str, int, bytes], slice]:
    """Return where each text stands: its document, its place there, and its tokens."""
    places: dict[str, int] = {}
    found = {}
    starts = recording.starts
    for record, start, end in zip(recording.records, starts, starts[1:], strict=False):
        place = places[record.document] = places.get(record.document, -1) + 1
        tokens = recording.token_ids[start:end]  # type: ignore[index]
        if len(tokens):
            found[record.document, place, tokens.tobytes()] = slice(start, end)
    return found
