"""Measure an observer: which answers are right, and which step is the first wrong one.

Shapes: N answers or steps, S steps of one answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.experts.bootstrap import Interval
from veche.roles.evaluation.baselines import MAJORITY
from veche.roles.evaluation.intervals import grouped_interval, same_group_pairs
from veche.roles.evaluation.metrics import accuracy, auprc, aurc, auroc, brier, ece
from veche.roles.evaluation.scored import (
    ROLE,
    Candidate,
    Curve,
    Measures,
    Metric,
    Note,
    Prepared,
    score_statistics,
)
from veche.roles.probe.compare import TEXT_AND_PLACE, held_out_scores, methods, scores_of
from veche.roles.probe.first_wrong import first_wrong_step
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.rows import Rows
from veche.roles.probe.stack import Stack

HEADLINE = "auroc"
_UNFITTED = ("mean log-prob", "max-prob", "entropy")
BASELINES = (*_UNFITTED, "tf-idf", TEXT_AND_PLACE, "surface", "router")
"""Of `compare.methods`, those that no probe of hidden states is part of."""
_THRESHOLD = 0.5
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a stack is measured on.

    Attributes:
        measures: "answer" or "step".
        rows: of the examples; of steps, also those that nobody judged.
        learnt: rows that baselines learn from; None where they learn from folds of `rows`.
    """

    measures: Measures
    rows: Rows
    learnt: Rows | None


def prepare_stack(stack: Stack, judged: Judged, *, is_alone: bool = False) -> Prepared:
    """Prepare to measure how well a probe tells right from wrong, beside its baselines.

    Args:
        stack: the probe.
        judged: what it judges.
        is_alone: leave the baselines out.

    Raises:
        InputError: no row is judged.
    """
    rows = judged.rows
    if not rows.is_judged.any():
        raise InputError(
            f"nobody said of any {judged.measures} whether it is right",
            hint="see docs/reference/files.md for how examples are labelled",
        )
    scores = {ROLE: stack.scores(rows.blocks)[:, 1]}
    if not is_alone:
        scores |= _baselines(judged)
    known = rows.is_judged
    groups = [group for group, is_known in zip(rows.groups, known, strict=True) if is_known]
    return Prepared(
        measures=judged.measures,
        candidates=tuple(
            replace(
                candidate(
                    name,
                    each[known],
                    rows.is_positive[known],
                    is_probability=name not in _UNFITTED,
                ),
                known=_known(judged, name, each),
            )
            for name, each in scores.items()
        ),
        groups=tuple(groups),
        headline=HEADLINE,
        notes=tuple(notes_of(judged)),
    )


def candidate(
    name: str, score_N: Scores, is_positive_N: NDArray[np.bool_], *, is_probability: bool
) -> Candidate:
    """Return the figures of a score as functions of rows."""
    metrics: dict[str, Metric] = {"auroc": auroc, "auprc": auprc, "aurc": aurc}
    if is_probability:
        metrics |= {"accuracy": _accuracy, "ece": ece, "brier": brier}
    return Candidate(
        name=name,
        statistics=score_statistics(score_N, is_positive_N, metrics),
        curve=Curve(score=score_N, is_positive=is_positive_N, is_probability=is_probability),
    )


def notes_of(judged: Judged) -> list[Note]:
    """Return what to know of the figures."""
    positive_N = judged.rows.judged.is_positive
    notes = []
    if positive_N.all() or not positive_N.any():
        notes.append(Note(key="one_class", values={"label": judged.rows.judged.row_labels[0]}))
    if judged.learnt is None:
        notes.append(Note(key="folds"))
    return notes


def first_wrong_steps(rows: Rows, hazard_N: Scores) -> dict[int, int | None]:
    """Return the likeliest first wrong step of each example, by its index."""
    return {
        int(source): first_wrong_step(hazard_N[rows.source == source])
        for source in np.unique(rows.source)
    }


def _accuracy(score_N: Scores, is_positive_N: NDArray[np.bool_]) -> float:
    return float(((score_N >= _THRESHOLD) == is_positive_N).mean())


def _baselines(judged: Judged) -> dict[str, Scores]:
    """Return the scores of all baselines that can be had; of one class only, the untrained ones."""
    learnt = judged.rows.judged if judged.learnt is None else judged.learnt.judged
    is_learnable = len(set(learnt.row_labels)) > 1 and len(set(learnt.groups)) > 1
    named = {
        name: method
        for name, method in methods(judged.rows).items()
        if name in (BASELINES if is_learnable else _UNFITTED)
    }
    if judged.learnt is None and is_learnable:
        scores = held_out_scores(judged.rows, named, FitSettings())
    else:
        scores = scores_of(learnt, judged.rows, named, FitSettings())
    share = float(learnt.is_positive.mean())
    return {**scores, MAJORITY: np.full(len(judged.rows), share)}


def _known(judged: Judged, name: str, score_N: Scores) -> dict[str, Interval]:
    """Return figures that are not of rows: of pairs of one problem, or of whole answers."""
    rows = judged.rows
    if judged.measures == "answer":
        pairs = same_group_pairs(score_N, rows.is_positive, rows.groups)
        return {"same_question_pairs": pairs}
    return {} if name in _UNFITTED else {"first_error": _first_error(rows, score_N)}


def _first_error(rows: Rows, hazard_N: Scores) -> Interval:
    """Return the share of answers whose first wrong step, or that there is none, was found."""
    found = first_wrong_steps(rows, hazard_N)
    true = {source: _true_step(rows, source) for source in found}
    groups = {int(source): group for source, group in zip(rows.source, rows.groups, strict=True)}
    sources = list(found)
    pairs = [(found[source], true[source]) for source in sources]

    def share(at: NDArray[np.int64]) -> float:
        """Return it for some answers."""
        return accuracy([pairs[i][0] for i in at], [pairs[i][1] for i in at])

    return grouped_interval(share, [groups[source] for source in sources])


def _true_step(rows: Rows, source: int) -> int | None:
    wrong: Iterable[int] = rows.place[(rows.source == source) & rows.is_positive & rows.is_judged]
    return next((int(step) for step in wrong), None)
