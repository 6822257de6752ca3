"""A probe beside its rivals, on problems that none of them has seen.

Shapes: N rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.extras import require_extra
from veche.experts.bootstrap import Interval
from veche.roles.evaluation.intervals import gain_interval, grouped_interval
from veche.roles.evaluation.metrics import auroc
from veche.roles.probe.features import HIDDEN, LOAD, LOGPROB, ROUTER, SURFACE
from veche.roles.probe.fitting import FitSettings, Fitted, grouped_folds
from veche.roles.probe.rows import Rows
from veche.roles.probe.scalars import LOGPROB_SCALARS
from veche.roles.probe.stack import fit_parts, fit_stack

Scores = NDArray[np.float64]
Parts = Mapping[str, Fitted]
Method = Callable[[Rows, Rows, FitSettings, Parts], Scores]
"""Takes rows to learn from and rows to score, settings, and probes of the wide blocks, fitted to
the first; returns the score of the positive label."""
_TEXT = (SURFACE,)
_BLOCKS = {
    "surface": _TEXT,
    "logprob": (LOGPROB,),
    "router": (ROUTER, LOAD),
    "hidden": (HIDDEN,),
    "surface + logprob": (*_TEXT, LOGPROB),
    "surface + router": (*_TEXT, ROUTER, LOAD),
    "surface + hidden": (*_TEXT, HIDDEN),
    "surface + logprob + hidden": (*_TEXT, LOGPROB, HIDDEN),
}
_UNTRAINED = {
    "mean log-prob": "logprob_mean",
    "max-prob": "max_prob_mean",
    "entropy": "entropy_mean",
}
STACK = "stack"
RIVAL = "surface"
"""Surface features hold the step's place too: text + position."""


def methods(rows: Rows) -> dict[str, Method]:
    """Return the stack and all that it is compared with, as far as the rows have their features."""
    figures = _UNTRAINED if LOGPROB in rows.blocks else {}
    found: dict[str, Method] = {name: _untrained(column) for name, column in figures.items()}
    found["tf-idf"] = _tf_idf
    for name, blocks in _BLOCKS.items():
        if set(blocks) <= set(rows.blocks):
            found[name] = of_blocks(blocks)
    found[STACK] = of_blocks(tuple(rows.blocks))
    return found


def held_out_scores(
    rows: Rows, methods: Mapping[str, Method], settings: FitSettings
) -> dict[str, Scores]:
    """Return each method's score of each row, by one that did not see its group.

    Rows that nobody judged are scored, and never learnt from.
    """
    scores = {name: np.zeros(len(rows)) for name in methods}
    for seen, left_out in grouped_folds(rows.groups, rows.is_positive.astype(np.int64), settings):
        first, second = rows.taken(seen).judged, rows.taken(left_out)
        for name, score in scores_of(first, second, methods, settings).items():
            scores[name][left_out] = score
    return scores


def scores_of(
    seen: Rows, left_out: Rows, methods: Mapping[str, Method], settings: FitSettings
) -> dict[str, Scores]:
    """Let each method learn from some rows, and return its scores of others."""
    parts = fit_parts(
        seen.blocks, seen.row_labels, seen.groups, labels=seen.labels, settings=settings
    )
    return {name: method(seen, left_out, settings, parts) for name, method in methods.items()}


def auroc_interval(scores_N: Scores, rows: Rows) -> Interval:
    """Return the AUROC over judged rows, with its interval over resampled groups."""
    judged, scores = rows.judged, scores_N[rows.is_judged]
    is_positive = judged.is_positive
    return grouped_interval(lambda at: auroc(scores[at], is_positive[at]), judged.groups)


def auroc_at_equal_place(scores_N: Scores, rows: Rows) -> Interval:
    """Return the AUROC among pairs of steps with the same index, with its interval.

    Σ_p (wins_p + ½ ties_p) / Σ_p pairs_p over places p: what is left once the place is no help.
    """
    judged, scores = rows.judged, scores_N[rows.is_judged]
    place, is_positive = judged.place, judged.is_positive
    return grouped_interval(
        lambda at: _equal_place(scores[at], is_positive[at], place[at]), judged.groups
    )


def gain(base_N: Scores, other_N: Scores, rows: Rows) -> Interval:
    """Return by how much the second AUROC is above the first, paired."""
    judged = rows.judged
    base, other, is_positive = base_N[rows.is_judged], other_N[rows.is_judged], judged.is_positive
    return gain_interval(
        lambda at: auroc(base[at], is_positive[at]),
        lambda at: auroc(other[at], is_positive[at]),
        judged.groups,
    )


def of_blocks(names: Sequence[str]) -> Method:
    """Return the method that fits a stack of some blocks."""

    def scored(seen: Rows, left_out: Rows, settings: FitSettings, parts: Parts) -> Scores:
        """Fit it, and score what was left out."""
        found = fit_stack(
            {name: seen.blocks[name] for name in names},
            seen.row_labels,
            seen.groups,
            labels=seen.labels,
            settings=settings,
            parts=parts,
        )
        return found.stack.scores(left_out.blocks)[:, 1]

    return scored


def _equal_place(scores: Scores, is_positive: NDArray[np.bool_], place: NDArray[Any]) -> float:
    won, pairs = 0.0, 0
    for index in np.unique(place):
        here = place == index
        num = int(is_positive[here].sum()) * int((~is_positive[here]).sum())
        if num:
            won += num * auroc(scores[here], is_positive[here])
            pairs += num
    return won / pairs if pairs else np.nan


def _untrained(column: str) -> Method:
    """Return a figure as it is: surer is righter, and less likely the first wrong step."""
    index = LOGPROB_SCALARS.index(column)
    is_unsure = column.startswith("entropy")

    def scored(seen: Rows, left_out: Rows, settings: FitSettings, parts: Parts) -> Scores:
        """Take a column, its sign by what it means."""
        is_confidence = left_out.labels[1] == "right"
        return left_out.blocks[LOGPROB][:, index] * (1 if is_unsure != is_confidence else -1)

    return scored


def _tf_idf(seen: Rows, left_out: Rows, settings: FitSettings, parts: Parts) -> Scores:
    """Fit words and pairs of words, without any model."""
    require_extra("probe")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words: Any = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, tokenizer=str.split, token_pattern=None
    )
    model = make_pipeline(words, LogisticRegression(C=1.0, max_iter=1000))
    model.fit(seen.texts, seen.is_positive)
    return np.asarray(model.predict_proba(left_out.texts)[:, 1], np.float64)
