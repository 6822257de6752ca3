"""An observer's figures, on observations made up so that the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from tests.roles.probe.test_compare import FAST, made

from veche.core.errors import InputError
from veche.roles.evaluation.answers import Judged, prepare_stack
from veche.roles.evaluation.metrics import auroc
from veche.roles.evaluation.scored import measured
from veche.roles.probe.first_wrong import first_wrong_step
from veche.roles.probe.rows import answer_rows, step_rows
from veche.roles.probe.stack import Fits

MAKE = {"answer": answer_rows, "step": step_rows}


def halves(measures):
    """Rows to learn from and rows to judge, of other problems."""
    examples, seen = made()
    return [MAKE[measures](examples[part], seen[part]) for part in (slice(30), slice(30, 60))]


def stack_of(rows):
    judged = rows.judged
    fits = Fits(
        judged.blocks, judged.row_labels, judged.groups, labels=judged.labels, settings=FAST
    )
    return fits.stack(("hidden",)).stack


@pytest.mark.parametrize("measures", ["answer", "step"])
def test_a_probe_of_states_stands_beside_what_words_and_log_probs_tell(measures):
    learnt, rows = halves(measures)
    stack = stack_of(learnt)
    prepared = prepare_stack(stack, Judged(measures=measures, rows=rows, learnt=learnt))
    names = [each.name for each in prepared.candidates]
    assert names[0] == "role"
    assert {"tf-idf", "surface", "entropy", "max-prob", "mean log-prob", "majority"} <= set(names)
    assert not any("hidden" in name for name in names)
    score, judged = stack.scores(rows.blocks)[:, 1], rows.is_judged
    part = measured(prepared)
    assert part.role.figures["auroc"].mean == auroc(score[judged], rows.is_positive[judged])
    last = part.methods[-1]
    assert last.figures["auroc"].mean == 0.5
    assert "ece" in last.figures
    untrained = next(method for method in part.methods if method.name == "entropy")
    assert "ece" not in untrained.figures  # it is no probability
    assert prepared.notes == ()


def test_the_first_error_is_found_where_the_likeliest_step_is_the_labelled_one():
    learnt, rows = halves("step")
    stack = stack_of(learnt)
    prepared = prepare_stack(stack, Judged(measures="step", rows=rows, learnt=learnt))
    hazard = stack.scores(rows.blocks)[:, 1]
    examples, _ = made()
    found = [
        first_wrong_step(hazard[rows.source == n]) == examples[30 + n].first_bad_step
        for n in range(30)
    ]
    assert prepared.role.known["first_error"].mean == np.mean(found)
    assert np.mean(found) > 0.5


def test_baselines_that_learn_from_the_data_itself_do_so_by_folds_and_it_is_said():
    learnt, rows = halves("answer")
    judged = Judged(measures="answer", rows=rows, learnt=None)
    assert [note.key for note in prepare_stack(stack_of(learnt), judged).notes] == ["folds"]


def test_of_one_class_only_it_is_said_that_nothing_separates():
    learnt, rows = halves("answer")
    right = rows.taken(np.flatnonzero(rows.is_positive))
    prepared = prepare_stack(stack_of(learnt), Judged(measures="answer", rows=right, learnt=None))
    assert {note.key for note in prepared.notes} == {"one_class", "folds"}
    part = measured(prepared)
    assert np.isnan(part.role.figures["auroc"].mean)
    assert part.role.figures["brier"].mean >= 0
    assert "tf-idf" not in [method.name for method in part.methods]


def test_rows_that_nobody_judged_are_refused():
    learnt, rows = halves("step")
    unknown = replace(rows, is_judged=np.zeros(len(rows), bool))
    with pytest.raises(InputError, match="nobody said of any step"):
        prepare_stack(stack_of(learnt), Judged(measures="step", rows=unknown, learnt=learnt))
