"""Reports: figures of made ones by hand, and a tiny model that is held to a schema."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.tiny_models import tiny_llama

from veche.core.errors import InputError
from veche.engines.transformers import create
from veche.roles.data.problems.generate import generate
from veche.roles.evaluation.metrics import auroc, brier
from veche.roles.evaluation.reports import candidate, prepare_reports
from veche.roles.evaluation.scored import measured
from veche.roles.registry import Registry
from veche.roles.reporter.ask import Reported
from veche.roles.reporter.confidence import DigitTokens
from veche.roles.reporter.report import InvalidReport
from veche.roles.reporter.training_data import right_report
from veche.roles.speaker import Speaker
from veche.surgery.loading import load_tokenizer


@pytest.fixture(scope="module")
def examples():
    """Two answers, a right and a wrong one, to each of four problems."""
    return generate("arithmetic", language="en", difficulty=1, count=4, seed=0)


def said(report, confidence):
    return Reported(report=report, confidence=confidence, num_tokens=9)


BROKEN = said(InvalidReport(text="", reason=""), None)


def test_figures_of_made_reports_are_those_of_counting(examples):
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=8)
    held = [said(right_report(e), c) for e, c in zip(examples, sure, strict=True)]
    held[0] = BROKEN
    other = right_report(examples[1])
    held[1] = said(replace(other, first_bad_step=7, intent="cooking"), sure[1])
    made = candidate("role", examples, held, [BROKEN, *held[1:4], *[BROKEN] * 4])
    every = np.arange(8)
    figures = {name: statistic(every) for name, statistic in made.statistics.items()}
    confidence = np.array([0.5, *sure[1:]])
    label = np.array([bool(e.is_right) for e in examples])
    assert figures["auroc"] == auroc(confidence, label)
    assert figures["brier"] == brier(confidence, label)
    assert figures["first_error"] == 6 / 8
    assert figures["intent"] == 6 / 8
    assert figures["validity"] == 3 / 8


def test_perfect_reports_are_perfect_and_reversed_ones_the_reverse(examples):
    every = np.arange(8)
    held = [said(right_report(e), float(e.is_right)) for e in examples]
    made = candidate("role", examples, held, held)
    wanted = {"auroc": 1, "ece": 0, "first_error": 1, "validity": 1, "intent": 1}
    assert {name: made.statistics[name](every) for name in wanted} == wanted
    assert made.known["same_question_pairs"].mean == 1
    reversed_ = [replace(each, confidence=1 - each.confidence) for each in held]
    other = candidate("role", examples, reversed_, reversed_)
    assert other.statistics["auroc"](every) == other.known["same_question_pairs"].mean == 0


def test_a_first_error_that_nobody_looked_for_counts_neither_way(examples):
    unknown = [
        e if e.is_right else replace(e, first_bad_step=None) for e in examples
    ]  # wrong somewhere
    held = [said(right_report(e), 0.5) for e in examples]
    made = candidate("role", unknown, held, held)
    assert made.statistics["first_error"](np.arange(8)) == 1
    wrong = np.array([n for n, e in enumerate(examples) if not e.is_right])
    assert math.isnan(made.statistics["first_error"](wrong))


def test_a_model_reports_beside_itself_and_guesses(examples, tmp_path):
    folder = tiny_llama(tmp_path / "llama", max_position_embeddings=2048)
    engine = create(folder, dtype="float32")
    digits = DigitTokens(load_tokenizer(folder))
    speaker = Speaker(role=Registry(tmp_path / "roles").get("recursia"))
    prepared = prepare_reports(engine, speaker, digits, examples, [])
    assert [note.key for note in prepared.notes] == ["own_commonest"]
    part = measured(prepared)
    names = [method.name for method in part.methods]
    assert names == ["role", "model", "none", "commonest", "commonest_step", "last_step"]
    # Nothing was trained: the role is the model, to the last digit.
    assert part.methods[1].gains["auroc"].as_list() == [0, 0]
    assert part.role.figures["validity"].mean < 1
    assert part.methods[2].figures["first_error"].mean == 0.5


def test_answers_that_nobody_judged_cannot_be_reported_on(examples, tmp_path):
    blind = [replace(e, is_right=None, first_bad_step=None) for e in examples]
    with pytest.raises(InputError, match="nobody said"):
        prepare_reports(None, None, None, blind, [])
