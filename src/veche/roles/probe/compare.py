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
from veche.roles.probe.fitting import FitSettings, grouped_folds
from veche.roles.probe.rows import STEP_LABELS, Rows
from veche.roles.probe.scalars import LOGPROB_SCALARS
from veche.roles.probe.stack import Fits
from veche.roles.probe.surface import ANSWER_FEATURES, PLAIN, STEP_FEATURES

Scores = NDArray[np.float64]
Method = Callable[[Rows, Rows, Fits], Scores]
"""Takes rows to learn from, rows to score, and probes of the first; returns the score of the
positive label."""
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
"""What can be seen of a text without a model; of a step, its place too."""
TEXT_AND_PLACE = "text + position"
"""The plainer rival: words, length, digits, place."""
_PLAIN_WEIGHT = 0.3
"""Of standardised features beside TF-IDF, whose rows have length 1."""


def methods(rows: Rows) -> dict[str, Method]:
    """Return the stack and all that it is compared with, as far as the rows have their features."""
    figures = _UNTRAINED if LOGPROB in rows.blocks else {}
    found: dict[str, Method] = {name: _untrained(column) for name, column in figures.items()}
    found |= {"tf-idf": _tf_idf, TEXT_AND_PLACE: _text_and_place}
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
    fits = Fits(seen.blocks, seen.row_labels, seen.groups, labels=seen.labels, settings=settings)
    return {name: method(seen, left_out, fits) for name, method in methods.items()}


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

    def scored(seen: Rows, left_out: Rows, fits: Fits) -> Scores:
        """Fit it, and score what was left out."""
        return fits.stack(names).stack.scores(left_out.blocks)[:, 1]

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

    def scored(seen: Rows, left_out: Rows, fits: Fits) -> Scores:
        """Take a column, its sign by what it means."""
        is_confidence = left_out.labels[1] == "right"
        return left_out.blocks[LOGPROB][:, index] * (1 if is_unsure != is_confidence else -1)

    return scored


def _tf_idf(seen: Rows, left_out: Rows, fits: Fits) -> Scores:
    """Fit words and pairs of words, without any model."""
    return _of_words(seen, left_out, np.zeros((len(seen), 0)), np.zeros((len(left_out), 0)))


def _text_and_place(seen: Rows, left_out: Rows, fits: Fits) -> Scores:
    """Fit words and pairs of words, with length, digits, the number of steps and the place."""
    names = STEP_FEATURES if seen.labels == STEP_LABELS else ANSWER_FEATURES
    columns = [index for index, name in enumerate(names) if name in PLAIN]
    first, second = (rows.blocks[SURFACE][:, columns] for rows in (seen, left_out))
    scale = first.std(0) + 1e-9
    return _of_words(seen, left_out, _PLAIN_WEIGHT * first / scale, _PLAIN_WEIGHT * second / scale)


def _of_words(seen: Rows, left_out: Rows, first: Scores, second: Scores) -> Scores:
    require_extra("probe")
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words: Any = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, tokenizer=str.split, token_pattern=None
    )
    model = LogisticRegression(C=1.0, max_iter=2000)
    model.fit(hstack([words.fit_transform(seen.texts), first]), seen.is_positive)
    found = model.predict_proba(hstack([words.transform(left_out.texts), second]))
    return np.asarray(found[:, 1], np.float64)
