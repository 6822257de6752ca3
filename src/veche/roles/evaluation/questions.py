"""Measure a reader of intents beside its baselines.

Shapes: N questions, F features.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.roles.data.example import Example
from veche.roles.data.public_sets import OUT_OF_SCOPE
from veche.roles.evaluation.baselines import MAJORITY, TF_IDF, Guesses, majority, tf_idf
from veche.roles.evaluation.intervals import Rows, Statistic
from veche.roles.evaluation.metrics import aurc, auroc, brier, ece, recall
from veche.roles.evaluation.scored import ROLE, Candidate, Curve, Note, Prepared
from veche.roles.intent.reader import IN_SCOPE, IntentReader, Reading, question_of

HEADLINE = "accuracy"
KEPT = 0.9
"""Of known questions, at the threshold where methods' recall of unknown ones is compared."""


def prepare_questions(
    reader: IntentReader,
    examples: Sequence[Example],
    states_NF: NDArray[np.float32],
    learn_from: Sequence[Example],
) -> Prepared:
    """Prepare to measure how well a reader tells intents, and what is none of them.

    A question whose intent the reader does not know is out of scope for it, whatever its label.

    Args:
        reader: what is measured.
        examples: with intents.
        states_NF: of each of them, by `read_states`.
        learn_from: what baselines learn from; without it, there are none.

    Raises:
        InputError: an example has no intent, or none is of a known one.
    """
    labels, notes = known_labels(reader, examples)
    texts = [question_of(example) for example in examples]
    guesses = {ROLE: guesses_of(reader.read(texts, states_NF))}
    learnt = [
        (question_of(example), str(example.intent))
        for example in learn_from
        if example.intent in reader.intents
    ]
    if len({intent for _, intent in learnt}) > 1:
        lines, intents = zip(*learnt, strict=True)
        guesses[TF_IDF] = tf_idf(lines, intents, texts)
        guesses[MAJORITY] = majority(intents, len(texts))
    else:
        notes.append(Note(key="no_baselines"))
    candidates = [candidate(name, each, labels) for name, each in guesses.items()]
    candidates[0] = replace(
        candidates[0],
        statistics={**candidates[0].statistics, **_at_threshold(guesses[ROLE], labels)},
    )
    return Prepared(
        measures="question",
        candidates=tuple(candidates),
        groups=tuple(example.group for example in examples),
        headline=HEADLINE,
        notes=tuple(notes),
    )


def known_labels(
    reader: IntentReader, examples: Sequence[Example]
) -> tuple[tuple[str | None, ...], list[Note]]:
    """Return each example's intent, None where the reader has none such, and what to say of it.

    Raises:
        InputError: an example has no intent, or none is of a known one.
    """
    missing = [example for example in examples if example.intent is None]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(examples)} examples have no intent, the first: "
            f"{missing[0].messages[-1].content[:80]!r}",
            hint='write {"messages": […], "intent": "…"} a line',
        )
    known = set(reader.intents)
    labels = tuple(e.intent if e.intent in known else None for e in examples)
    if not any(labels):
        raise InputError(
            f"no example has an intent that the reader knows: it knows {reader.intents[0]!r} and "
            f"{len(known) - 1} more, and the first example is {examples[0].intent!r}",
            hint="give it examples of the labels that it was trained on",
        )
    return labels, list(_notes(labels, examples))


def _notes(labels: Sequence[str | None], examples: Sequence[Example]) -> Iterator[Note]:
    unseen = Counter(
        str(example.intent)
        for example, label in zip(examples, labels, strict=True)
        if label is None and example.intent != OUT_OF_SCOPE
    )
    if unseen:
        named = ", ".join(sorted(unseen)[:5]) + (" …" if len(unseen) > 5 else "")
        yield Note(
            key="unseen_labels",
            values={"count": unseen.total(), "labels": len(unseen), "named": named},
        )
    if all(labels):
        yield Note(key="all_in_scope")


def guesses_of(readings: Sequence[Reading]) -> Guesses:
    """Return what a reader took questions for."""
    return Guesses(
        intents=tuple(reading.intent for reading in readings),
        confidence=np.array([reading.confidence for reading in readings]),
        in_scope=np.array([reading.in_scope for reading in readings]),
    )


def candidate(name: str, guesses: Guesses, labels_N: Sequence[str | None]) -> Candidate:
    """Return the figures of a method as functions of rows.

    Accuracy, calibration and risk are of questions in scope.
    """
    is_in_N = np.array([label is not None for label in labels_N])
    is_right_N = np.array(
        [found == label for found, label in zip(guesses.intents, labels_N, strict=True)]
    )
    confidence_N, in_scope_N = guesses.confidence, guesses.in_scope

    def within(metric: Statistic) -> Statistic:
        """Restrict it to rows in scope."""
        return lambda rows: metric(rows[is_in_N[rows]])

    statistics: dict[str, Statistic] = {
        "accuracy": within(lambda rows: float(is_right_N[rows].mean()) if len(rows) else np.nan),
        "ece": within(lambda rows: ece(confidence_N[rows], is_right_N[rows])),
        "brier": within(lambda rows: brier(confidence_N[rows], is_right_N[rows])),
        "aurc": within(lambda rows: aurc(confidence_N[rows], is_right_N[rows])),
    }
    if not is_in_N.all():
        statistics |= {
            "oos_auroc": lambda rows: auroc(in_scope_N[rows], is_in_N[rows]),
            "oos_recall_at_90": lambda rows: _recall_where_kept(in_scope_N[rows], is_in_N[rows]),
        }
    curve = Curve(score=confidence_N[is_in_N], is_positive=is_right_N[is_in_N], is_probability=True)
    return Candidate(name=name, statistics=statistics, curve=curve)


def _recall_where_kept(in_scope_N: NDArray[np.float64], is_in_N: NDArray[np.bool_]) -> float:
    """Return the share of unknown questions below the threshold that keeps 90 % of known ones."""
    if not is_in_N.any():
        return np.nan
    threshold = np.quantile(in_scope_N[is_in_N], 1 - KEPT)
    return recall(in_scope_N < threshold, ~is_in_N)


def _at_threshold(guesses: Guesses, labels_N: Sequence[str | None]) -> dict[str, Statistic]:
    """Return what the reader's own threshold finds and keeps."""
    is_in_N = np.array([label is not None for label in labels_N])
    is_kept_N = guesses.in_scope >= IN_SCOPE

    def kept(rows: Rows) -> float:
        """Return the share of known questions that it takes for such."""
        return recall(is_kept_N[rows], is_in_N[rows])

    def found(rows: Rows) -> float:
        """Return the share of unknown questions that it takes for such."""
        return recall(~is_kept_N[rows], ~is_in_N[rows])

    return {"kept": kept} if is_in_N.all() else {"kept": kept, "oos_recall": found}
