"""Intents: figures by hand, baselines against counting, labels that nobody learnt."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.roles.intent.questions import questions

from veche.core.errors import InputError
from veche.roles.evaluation.baselines import Guesses, majority, tf_idf
from veche.roles.evaluation.metrics import aurc, auroc, brier, ece
from veche.roles.evaluation.questions import candidate, known_labels, prepare_questions
from veche.roles.evaluation.scored import measured
from veche.roles.intent.reader import question_of
from veche.roles.intent.train import Questions, fit_reader

KNOWN = ("balance", "flight", "weather")
ALL = np.arange(8)


def states(examples):
    """States that hold the intent in one direction each, and little else."""
    rng = np.random.default_rng(0)
    names = [*KNOWN, "oos"]
    rows = [np.eye(4)[names.index(str(e.intent))] + 0.3 * rng.normal(size=4) for e in examples]
    return np.asarray(rows, np.float32)


def parts():
    """Every second question of each intent is learnt from."""
    asked = questions()
    return asked[::2], asked[1::2]


@pytest.fixture(scope="module")
def reader():
    learnt = [example for example in parts()[0] if example.intent != "oos"]
    made = Questions(
        texts=tuple(question_of(example) for example in learnt),
        states=states(learnt),
        intents=KNOWN,
        label=np.array([KNOWN.index(str(example.intent)) for example in learnt]),
    )
    return fit_reader(made, (0,))[0]


def test_a_reader_stands_beside_its_baselines(reader):
    learnt, asked = parts()
    prepared = prepare_questions(reader, asked, states(asked), learnt)
    part = measured(prepared)
    assert [method.name for method in part.methods] == ["role", "tf-idf", "majority"]
    assert part.role.figures["accuracy"].mean > 0.9
    assert part.role.figures["oos_auroc"].mean > 0.8
    in_scope = [example.intent for example in asked if example.intent != "oos"]
    chance = part.methods[2].figures
    assert chance["accuracy"].mean == in_scope.count("balance") / len(in_scope)
    assert chance["oos_auroc"].mean == 0.5
    assert {"kept", "oos_recall"} <= set(part.role.figures)
    assert "kept" not in part.methods[1].figures
    assert part.notes == ()


def test_figures_of_guesses_are_those_of_counting():
    labels = ("a", "a", "b", "b", None, None, "a", None)
    guesses = Guesses(
        intents=("a", "b", "b", "b", "a", "b", "a", "a"),
        confidence=np.array([0.9, 0.6, 0.8, 0.7, 0.5, 0.4, 0.95, 0.65]),
        in_scope=np.array([0.9, 0.3, 0.8, 0.7, 0.5, 0.2, 0.95, 0.1]),
    )
    inside = np.array([label is not None for label in labels])
    right = np.array([True, False, True, True, True])
    made = candidate("x", guesses, labels)
    figures = {name: statistic(ALL) for name, statistic in made.statistics.items()}
    assert figures["accuracy"] == 0.8
    for name, metric in (("ece", ece), ("brier", brier), ("aurc", aurc)):
        assert figures[name] == metric(guesses.confidence[inside], right)
    assert figures["oos_auroc"] == auroc(guesses.in_scope, inside)
    # Nine tenths of five known ones are kept above 0.46: two of three unknown ones lie below.
    assert figures["oos_recall_at_90"] == pytest.approx(2 / 3)
    assert math.isnan(made.statistics["accuracy"](np.array([4, 5])))
    assert math.isnan(made.statistics["oos_auroc"](np.array([4, 5])))
    assert math.isnan(made.statistics["oos_recall_at_90"](np.array([4, 5])))


def test_a_label_that_was_never_learnt_is_out_of_scope_and_is_said(reader):
    asked = [*questions("weather"), *(replace(e, intent="poetry") for e in questions("oos"))]
    labels, (note,) = known_labels(reader, asked)
    assert labels == ("weather",) * 12 + (None,) * 12
    assert note.key == "unseen_labels"
    assert note.values == {"count": 12, "labels": 1, "named": "poetry"}


def test_where_all_are_known_nothing_is_said_of_others(reader):
    asked = questions("weather", "balance")
    prepared = prepare_questions(reader, asked, states(asked), [])
    assert {note.key for note in prepared.notes} == {"all_in_scope", "no_baselines"}
    assert "oos_auroc" not in prepared.role.statistics
    assert [each.name for each in prepared.candidates] == ["role"]


def test_questions_without_a_label_or_of_no_known_one_are_refused(reader):
    asked = questions("weather")
    with pytest.raises(InputError, match="1 of 12 examples have no intent"):
        known_labels(reader, [replace(asked[0], intent=None), *asked[1:]])
    with pytest.raises(InputError, match="no example has an intent that the reader knows"):
        known_labels(reader, questions("oos"))


def test_words_alone_tell_what_words_tell_and_majority_tells_nothing():
    learnt, asked = ([e for e in part if e.intent != "oos"] for part in parts())
    guessed = tf_idf(
        [question_of(e) for e in learnt], [str(e.intent) for e in learnt],
        [question_of(e) for e in asked],
    )  # fmt: skip
    right = [found == e.intent for found, e in zip(guessed.intents, asked, strict=True)]
    assert np.mean(right) > 0.8
    common = majority(["b", "a", "b", "a", "c"], 2)
    assert common.intents == ("a", "a")
    assert common.confidence.tolist() == [0.4, 0.4]
