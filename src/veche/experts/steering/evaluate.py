"""Measure what a steering does: what it is for, and what it does besides.

Shapes: N texts, S strengths, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.core.progress import Advance, Progress, Silent
from veche.engines.protocol import Engine, Steering
from veche.experts.bootstrap import LEVEL, RESAMPLES, Interval, mean_interval
from veche.experts.steering.basis import SteeringBasis
from veche.experts.steering.figures import Collateral, Effect, Evaluation, StrengthFigures
from veche.experts.steering.reading import Reader, Reading, reader
from veche.experts.steering.texts import TextSet

_FEWEST_TEXTS = 2
_FLOOR_STRENGTH = 1e-3
"""In nats: it decides between experts that are equal for the router, and nothing else."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingTexts:
    """What a steering is judged on.

    Attributes:
        for_: texts to steer for; none that it was found with is used.
        against: texts to steer against; likewise.
        neutral: pieces of text that have nothing to do with either.
    """

    for_: TextSet
    against: TextSet
    neutral: tuple[str, ...]


def evaluate(
    engine: Engine,
    steering: SteeringBasis,
    texts: JudgingTexts,
    *,
    strengths: Sequence[float],
    layers: range | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Read held-out and neutral texts with and without steering.

    Args:
        engine: runs the model.
        steering: what is judged.
        texts: to read.
        strengths: in nats.
        layers: model layers to act on; all by default.
        progress: told of each text.

    Raises:
        InputError: fewer than two texts of a set are left that the steering was not found with.
        UnsupportedError: the engine or the model cannot be steered.
    """
    heldout = [
        each.without(frozenset(steering.finding.used_texts)) for each in (texts.for_, texts.against)
    ]
    for given, left in zip((texts.for_, texts.against), heldout, strict=True):
        if len(left.texts) < _FEWEST_TEXTS:
            raise InputError(
                f"{len(left.texts)} of the {len(given.texts)} texts of {given.name} are left that "
                "this steering was not found with",
                hint="give texts that it has not seen, or find it again with a larger --holdout",
            )
    steered = [steering.at(value, layers) for value in (_FLOOR_STRENGTH, *strengths)]
    asked: list[Steering | None] = [None, *steered]
    total = sum(len(each.texts) for each in heldout) + len(texts.neutral)
    work = (progress or Silent()).task("read with and without steering", total=total)
    with reader(engine) as reads, work as advance:
        for_, against = (_readings(reads, each.texts, asked, advance) for each in heldout)
        neutral = [_neutral(reads, piece, asked, advance) for piece in texts.neutral]
    figures = [
        StrengthFigures(
            strength=strength,
            effect=_effect(for_, against, column, steering),
            collateral=_collateral(neutral, column),
        )
        for column, strength in enumerate((_FLOOR_STRENGTH, *strengths), start=1)
    ]
    return Evaluation(
        num_for=len(for_),
        num_against=len(against),
        num_neutral=len(neutral),
        nll_for=mean_interval([row[0].nll for row in for_]),
        nll_against=mean_interval([row[0].nll for row in against]),
        nll_neutral=mean_interval([row[0].nll for row in neutral]),
        floor=figures[0],
        rows=tuple(figures[1:]),
    )


def preference(change_for_N: Floats, change_against_N: Floats, *, seed: int = 0) -> Interval:
    """Return mean(change_against) − mean(change_for) with its interval, in nats a token.

    What steering costs both sets alike cancels out: above 0 it leans towards the texts to steer
    for. The sets are resampled independently.

    Args:
        change_for_N: of each text's NLL, steered minus not.
        change_against_N: of each text's NLL, of the other set.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(0, len(values), size=(RESAMPLES, len(values)))].mean(-1)
        for values in (change_for_N, change_against_N)
    ]
    low, high = np.quantile(means[1] - means[0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = change_against_N.mean() - change_for_N.mean()
    return Interval(mean=float(mean), low=float(low), high=float(high))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neutral:
    nll: float
    agreement: float
    kl: float


def _readings(
    reads: Reader, texts: Sequence[str], asked: Sequence[Steering | None], advance: Advance
) -> list[list[Reading]]:
    """Return a row of S + 1 readings for each text."""
    rows = []
    for text in texts:
        rows.append(reads.compared(text, asked))
        advance(1)
    return rows


def _neutral(
    reads: Reader, piece: str, asked: Sequence[Steering | None], advance: Advance
) -> list[_Neutral]:
    readings = reads.compared(piece, asked, wants_logits=True)
    plain = _log_softmax(readings[0].logits)
    figures = []
    for reading in readings:
        steered = _log_softmax(reading.logits)
        figures.append(
            _Neutral(
                nll=reading.nll,
                agreement=float((plain.argmax(-1) == steered.argmax(-1)).mean()),
                kl=float((np.exp(plain) * (plain - steered)).sum(-1).mean(dtype=np.float64)),
            )
        )
    advance(1)
    return figures


def _log_softmax(logits_TV: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert logits_TV is not None  # noqa: S101 - asked for
    shifted = logits_TV - logits_TV.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _effect(
    for_: Sequence[Sequence[Reading]],
    against: Sequence[Sequence[Reading]],
    column: int,
    steering: SteeringBasis,
) -> Effect:
    changes = [np.array([row[column].nll - row[0].nll for row in rows]) for rows in (for_, against)]
    both = [*for_, *against]
    return Effect(
        nll_for=mean_interval(changes[0]),
        nll_against=mean_interval(changes[1]),
        preference=preference(changes[0], changes[1]),
        favoured_rate=_rate_change(both, column, steering.basis > 0),
        muted_rate=_rate_change(both, column, steering.basis < 0),
    )


def _collateral(rows: Sequence[Sequence[_Neutral]], column: int) -> Collateral:
    return Collateral(
        nll=mean_interval([row[column].nll - row[0].nll for row in rows]),
        agreement=mean_interval([row[column].agreement for row in rows]),
        kl=mean_interval([row[column].kl for row in rows]),
    )


def _rate_change(
    rows: Sequence[Sequence[Reading]], column: int, is_meant: NDArray[np.bool_]
) -> Interval | None:
    """Return the change of the mean activation rate of some experts; None where there are none."""
    if not is_meant.any():
        return None
    rates = [
        [row[n].counts[is_meant].mean() / len(row[n].logprobs) for n in (0, column)] for row in rows
    ]
    return mean_interval([after - before for before, after in rates])
