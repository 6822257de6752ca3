"""Measure an observer that reports: valid JSON, confidence, the first wrong step.

Shapes: N reports.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.core.progress import Progress
from veche.engines.protocol import Engine
from veche.roles.data.example import Example
from veche.roles.evaluation.intervals import Statistic, same_group_pairs
from veche.roles.evaluation.metrics import auprc, aurc, auroc, brier, ece
from veche.roles.evaluation.scored import (
    ROLE,
    Candidate,
    Curve,
    Note,
    Prepared,
    score_statistics,
)
from veche.roles.evaluation.speech import MODEL
from veche.roles.reporter.ask import Reported, report_on
from veche.roles.reporter.confidence import DigitTokens
from veche.roles.reporter.guesses import guesses, is_step_known
from veche.roles.reporter.report import Report
from veche.roles.reporter.training_data import intent_of
from veche.roles.speaker import Speaker

HEADLINE = "auroc"
_UNKNOWN = 0.5
"""Confidence of a report that has none."""
_NO_REPORT = -1
"""The step of what is no report: no label is that."""


def prepare_reports(
    engine: Engine,
    speaker: Speaker,
    digits: DigitTokens,
    examples: Sequence[Example],
    learn_from: Sequence[Example],
    *,
    is_alone: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Let a role report on answers, and the model alone with the same prompt; prepare figures.

    `validity` is of reports that nothing holds to their schema; all others are of reports that are.

    Args:
        engine: with LOGITS and JSON.
        speaker: the role, ready to speak.
        digits: of the engine's tokenizer.
        examples: answers; those that nobody called right or wrong are left out.
        learn_from: answers whose commonest first wrong step is a baseline; empty: the examples.
        is_alone: leave the model alone, and guesses, out.
        progress: told of each report.

    Raises:
        InputError: nobody said of any answer whether it is right.
    """
    judged = [each for each in examples if each.is_answered and each.is_right is not None]
    if not judged:
        raise InputError(
            f"nobody said of any of {len(examples)} examples whether its answer is right",
            hint='write "is_right" a line: docs/reference/files.md#labelled-examples',
        )
    candidates = []
    speakers = {ROLE: speaker} | ({} if is_alone else {MODEL: Speaker(role=speaker.role)})
    for name, each in speakers.items():
        held = report_on(engine, judged, each, digits, progress=progress)
        free = report_on(engine, judged, each, digits, is_constrained=False, progress=progress)
        candidates.append(candidate(name, judged, held, free))
    if not is_alone:
        candidates += guessed(judged, learn_from or judged)
    unused = len(examples) - len(judged)
    notes = [Note(key="unused", values={"count": unused})] if unused else []
    if not learn_from:
        notes.append(Note(key="own_commonest"))
    return Prepared(
        measures="report",
        candidates=tuple(candidates),
        groups=tuple(example.group for example in judged),
        headline=HEADLINE,
        notes=tuple(notes),
    )


def candidate(
    name: str, examples: Sequence[Example], held: Sequence[Reported], free: Sequence[Reported]
) -> Candidate:
    """Return the figures of some reports as functions of rows.

    Args:
        name: of the method.
        examples: what was reported on.
        held: reports that were held to their schema.
        free: reports that nothing held.
    """
    confidence_N = np.array(
        [_UNKNOWN if each.confidence is None else each.confidence for each in held]
    )
    is_right_N = np.array([bool(example.is_right) for example in examples])
    reports = [each.report if isinstance(each.report, Report) else None for each in held]
    steps = [_NO_REPORT if report is None else report.first_bad_step for report in reports]
    is_intent_N = np.array(
        [
            report is not None and report.intent == intent_of(example)
            for report, example in zip(reports, examples, strict=True)
        ]
    )
    is_valid_N = np.array([each.is_valid for each in free])
    metrics = {"auroc": auroc, "auprc": auprc, "ece": ece, "brier": brier, "aurc": aurc}
    pairs = same_group_pairs(confidence_N, is_right_N, [example.group for example in examples])
    return Candidate(
        name=name,
        statistics={
            **score_statistics(confidence_N, is_right_N, metrics),
            "first_error": _first_error(examples, steps),
            "validity": _share(is_valid_N),
            "intent": _share(is_intent_N),
        },
        known={"same_question_pairs": pairs},
        curve=Curve(score=confidence_N, is_positive=is_right_N, is_probability=True),
    )


def guessed(examples: Sequence[Example], learn_from: Sequence[Example]) -> list[Candidate]:
    """Return how often guesses that read nothing are the first wrong step.

    Args:
        examples: what is guessed of.
        learn_from: labelled answers, whose commonest first wrong step is a guess.
    """
    return [
        Candidate(name=name, statistics={"first_error": _first_error(examples, steps)})
        for name, steps in guesses(examples, learn_from)
    ]


def _first_error(examples: Sequence[Example], steps: Sequence[int | None]) -> Statistic:
    """Return the share of first wrong steps that were found, where somebody looked for them."""
    is_known_N = np.array([is_step_known(example) for example in examples])
    is_found_N = np.array(
        [step == each.first_bad_step for step, each in zip(steps, examples, strict=True)]
    )
    share = _share(is_found_N)
    return lambda rows: share(rows[is_known_N[rows]])


def _share(is_so_N: NDArray[np.bool_]) -> Statistic:
    return lambda rows: float(is_so_N[rows].mean()) if len(rows) else np.nan
