"""Words and letters, weighed as scikit-learn weighs them."""

import numpy as np
import pytest
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from veche.roles.intent.wording import NGrams, fit_wording

TEXTS = (
    "what is the weather in Kazan",
    "What  is my balance, please?",
    "a b",
    "переведи слово «дом» на английский",
    "how do i say house in tatar",
    "is it a house or is it a home",
)
NEW = ("is the house in Kazan mine", "ничего", "", "what what is")


def peer(texts):
    pattern = r"\w+"
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    words.fit(texts)
    letters.fit(texts)
    names = [*words.get_feature_names_out(), *("\t" + n for n in letters.get_feature_names_out())]
    return lambda new: hstack([words.transform(new), letters.transform(new)]).toarray(), names


def dense(n_grams, texts):
    rows = np.zeros((len(texts), len(n_grams.names)))
    for row, (index, weight) in zip(rows, n_grams.weighed(texts), strict=True):
        row[index] = weight
    return rows


@pytest.mark.parametrize("texts", [TEXTS, NEW])
def test_weights_are_those_of_scikit_learn(texts):
    n_grams = NGrams.of(TEXTS)
    transform, names = peer(TEXTS)
    assert set(n_grams.names) == set(names)
    order = [names.index(name) for name in n_grams.names]
    assert dense(n_grams, texts) == pytest.approx(transform(texts)[:, order], abs=1e-6)


def test_scores_are_those_of_the_machine_that_was_fitted():
    label = np.array([0, 1, 2, 2, 0, 1])
    wording = fit_wording(TEXTS, label)
    transform, _ = peer(TEXTS)
    machine = LinearSVC(C=1.0, random_state=0, tol=1e-8).fit(transform(TEXTS), label)
    expected = machine.decision_function(transform(NEW))
    assert wording.scores(NEW) == pytest.approx(expected, abs=3e-3)
    assert (wording.scores(TEXTS).argmax(1) == label).all()


def test_two_intents_have_a_score_each():
    wording = fit_wording(TEXTS, np.array([0, 1, 0, 1, 0, 1]))
    scores = wording.scores(NEW)
    assert scores.shape == (4, 2)
    assert scores[:, 0] == pytest.approx(-scores[:, 1], abs=1e-3)


def test_no_text_has_no_scores():
    assert fit_wording(TEXTS, np.array([0, 1, 2, 2, 0, 1])).scores([]).shape == (0, 3)
