"""How good reports are: valid, sure of the right answers, at the first wrong step.

Shapes: N reports.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from veche.experts.bootstrap import Interval
from veche.roles.data.example import Example
from veche.roles.evaluation import metrics
from veche.roles.evaluation.intervals import Rows, grouped_interval, same_group_pairs
from veche.roles.probe.steps import steps_of
from veche.roles.reporter.ask import Reported
from veche.roles.reporter.report import Report

_UNKNOWN = 0.5
"""Confidence of a report that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReporterFigures:
    """Figures of some reports, with intervals that resample whole groups.

    Attributes:
        num_reports: N.
        validity: share that are reports.
        auroc: of the confidence, for right answers.
        pairs: share of right/wrong pairs of one question whose right one got more confidence.
        ece: of the confidence as a probability.
        brier: likewise.
        first_error: share whose first wrong step is the labelled one, "none" included; NaN where
            no step is labelled.
        baselines: the same share of guesses that read nothing, by name.
        intent: share whose intent is the labelled one.
    """

    num_reports: int
    validity: Interval
    auroc: Interval
    pairs: Interval
    ece: float
    brier: float
    first_error: Interval
    baselines: dict[str, Interval]
    intent: Interval

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""

        def told(interval: Interval) -> dict[str, Any]:
            return {"value": interval.mean, "interval": interval.as_list()}

        return {
            "num_reports": self.num_reports,
            "validity": told(self.validity),
            "auroc": told(self.auroc),
            "same_question_pairs": told(self.pairs),
            "ece": self.ece,
            "brier": self.brier,
            "first_error": told(self.first_error),
            "baselines": {name: told(interval) for name, interval in self.baselines.items()},
            "intent": told(self.intent),
        }


def figures_of(
    reported: Sequence[Reported],
    examples: Sequence[Example],
    intents: Sequence[str],
    learnt_from: Sequence[Example],
) -> ReporterFigures:
    """Compare reports with labels.

    Args:
        reported: N.
        examples: what was reported on, with `is_right`.
        intents: the right ones, as `intent_of` spells them.
        learnt_from: labelled answers, whose commonest first wrong step is a baseline.
    """
    groups = [example.group for example in examples]
    is_right_N = np.array([bool(example.is_right) for example in examples])
    confidence_N = np.array([_UNKNOWN if r.confidence is None else r.confidence for r in reported])
    reports = [item.report if isinstance(item.report, Report) else None for item in reported]
    found = [
        report.intent == intent if report else False
        for report, intent in zip(reports, intents, strict=True)
    ]
    steps = [_NO_REPORT if report is None else report.first_bad_step for report in reports]
    return ReporterFigures(
        num_reports=len(reported),
        validity=_share([item.is_valid for item in reported], groups),
        auroc=grouped_interval(
            lambda rows: metrics.auroc(confidence_N[rows], is_right_N[rows]), groups
        ),
        pairs=same_group_pairs(confidence_N, is_right_N, groups),
        ece=metrics.ece(confidence_N, is_right_N),
        brier=metrics.brier(confidence_N, is_right_N),
        first_error=_matches(steps, examples),
        baselines={
            name: _matches(guess, examples) for name, guess in guesses(examples, learnt_from)
        },
        intent=_share(found, groups),
    )


_NO_REPORT = -1
"""The step of no report: nobody's label."""


def is_step_known(example: Example) -> bool:
    """Whether somebody looked for the first wrong step: there is one, or the answer is right."""
    return example.first_bad_step is not None or bool(example.is_right)


def guesses(
    examples: Sequence[Example], learnt_from: Sequence[Example]
) -> list[tuple[str, list[int | None]]]:
    """Return first wrong steps that can be guessed without reading, by the guess's name."""
    known = Counter(e.first_bad_step for e in learnt_from if is_step_known(e))
    commonest = known.most_common(1)[0][0] if known else None
    wrong = Counter({step: count for step, count in known.items() if step is not None})
    step = wrong.most_common(1)[0][0] if wrong else 0
    return [
        ("none", [None for _ in examples]),
        ("commonest", [commonest for _ in examples]),
        ("commonest_step", [step for _ in examples]),
        ("last_step", [len(steps_of(example)) - 1 for example in examples]),
    ]


def _matches(steps: Sequence[int | None], examples: Sequence[Example]) -> Interval:
    known = [
        (step == example.first_bad_step, example.group)
        for step, example in zip(steps, examples, strict=True)
        if is_step_known(example)
    ]
    if not known:
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"))
    return _share([is_same for is_same, _ in known], [group for _, group in known])


def _share(is_so: Sequence[bool], groups: Sequence[str]) -> Interval:
    values_N = np.asarray(is_so, np.float64)

    def mean(rows: Rows) -> float:
        return float(values_N[rows].mean())

    return grouped_interval(mean, groups)
