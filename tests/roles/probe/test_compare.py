"""Rows, methods and figures, on observations made up so that the truth is known."""

import numpy as np
import pytest

from veche.roles.data.example import Example, Message
from veche.roles.evaluation.metrics import auroc
from veche.roles.probe.compare import (
    auroc_at_equal_place,
    auroc_interval,
    gain,
    held_out_scores,
    methods,
)
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.observation import Observation
from veche.roles.probe.rows import answer_rows, num_judged_steps, step_rows
from veche.roles.probe.scalars import LOGPROB_SCALARS

FAST = FitSettings(strengths=(0.01, 0.1, 1.0), folds=3)


def example(index, num_steps=4, first_bad=None, is_right=True):
    steps = tuple(f"step {number} of {index}" for number in range(num_steps))
    messages = (
        Message(role="user", content=f"question {index // 2}"),
        Message(role="assistant", content="\n".join(steps)),
    )
    return Example(
        messages=messages,
        group=str(index // 2),
        task="made",
        steps=steps,
        is_right=is_right,
        first_bad_step=first_bad,
    )


def observed(rng, num_steps, shift):
    """Return states that hold `shift` [S] in one direction among 160, and figures of noise."""
    hidden = rng.normal(size=(num_steps, 1, 160)).astype(np.float32)
    hidden[:, 0, 0] += 4 * shift
    scalars = rng.normal(size=(num_steps, len(LOGPROB_SCALARS))).astype(np.float32)
    return Observation(
        hidden=hidden,
        scalars=scalars,
        scalar_names=LOGPROB_SCALARS,
        load=None,
        num_tokens=np.full(num_steps, 5),
    )


def made(num=60):
    rng = np.random.default_rng(0)
    examples, seen = [], []
    for index in range(num):
        bad = int(rng.integers(4)) if index % 2 else None
        examples.append(example(index, first_bad=bad, is_right=bad is None))
        seen.append(observed(rng, 4, np.arange(4) == bad if bad is not None else np.zeros(4)))
    return examples, seen


def test_steps_behind_the_first_wrong_one_are_scored_and_not_judged():
    examples, seen = made(4)
    rows = step_rows(examples, seen)
    assert len(rows) == 16
    expected = [num_judged_steps(one) for one in examples]
    assert [int(rows.is_judged[rows.source == n].sum()) for n in range(4)] == expected
    assert rows.judged.is_positive.sum() == 2


def test_a_wrong_answer_without_a_marked_step_teaches_nothing_about_steps():
    one = example(0, is_right=False)
    assert num_judged_steps(one) == 0
    assert len(answer_rows([one], [observed(np.random.default_rng(0), 4, np.zeros(4))])) == 1


def test_what_only_states_hold_is_found_by_probes_of_states_and_no_others():
    rows = step_rows(*made())
    scores = held_out_scores(rows, methods(rows), FAST)
    judged = rows.is_judged
    found = {name: auroc(each[judged], rows.is_positive[judged]) for name, each in scores.items()}
    assert found["hidden"] > 0.9
    assert found["stack"] > 0.85
    assert found["logprob"] < 0.75
    assert "router" not in found  # there are none
    assert gain(scores["logprob"], scores["hidden"], rows).is_above_zero


def test_at_an_equal_place_the_place_is_worth_nothing():
    rows = step_rows(*made())
    by_place = rows.place.astype(np.float64)
    assert auroc_at_equal_place(by_place, rows).mean == pytest.approx(0.5)


def slow_equal_place(scores, rows):
    won, pairs = 0.0, 0
    for one in np.flatnonzero(rows.is_judged & rows.is_positive):
        for other in np.flatnonzero(rows.is_judged & ~rows.is_positive):
            if rows.place[one] == rows.place[other]:
                pairs += 1
                won += (scores[one] > scores[other]) + (scores[one] == scores[other]) / 2
    return won / pairs


def test_the_figure_at_an_equal_place_is_that_of_counting_pairs():
    rows = step_rows(*made(20))
    scores = np.random.default_rng(1).integers(0, 5, size=len(rows)).astype(np.float64)
    found = auroc_at_equal_place(scores, rows)
    assert found.mean == pytest.approx(slow_equal_place(scores, rows))
    assert found.low <= found.mean <= found.high


def test_untrained_figures_are_surer_where_answers_are_right():
    examples, seen = made()
    for one, each in zip(examples, seen, strict=True):
        each.scalars[:, LOGPROB_SCALARS.index("logprob_mean")] += 3 * bool(one.is_right)
    rows = answer_rows(examples, seen)
    scores = held_out_scores(rows, methods(rows), FAST)
    assert auroc_interval(scores["mean log-prob"], rows).mean > 0.9
