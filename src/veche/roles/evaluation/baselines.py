"""What a role has to beat at intents: the commonest one, and words without any model.

Shapes: N questions, K intents. Rivals at right and wrong, and at steps, are in
`roles.probe.compare`.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.extras import require_extra

MAJORITY, TF_IDF = "majority", "tf-idf"
_STRENGTH = 30.0
"""Inverse of the L2 penalty; on clinc150 10 is no better."""
_MOST_ITERATIONS = 100
"""Of L-BFGS; a looser tolerance than scikit-learn's own would stop too early, and cost .015."""
_FEW = 100
"""Of more texts than these, letters that one text alone has are left out: a fourth of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """What a method takes each question for.

    Attributes:
        intents: [N], the likeliest one.
        confidence: [N], its probability.
        in_scope: [N], higher the likelier that the question is of a known intent.
    """

    intents: tuple[str, ...]
    confidence: NDArray[np.float64]
    in_scope: NDArray[np.float64]


def majority(intents: Sequence[str], num_questions: int) -> Guesses:
    """Guess the commonest intent, of several the first by name, with its share as confidence."""
    counts = Counter(intents)
    best = min(counts, key=lambda intent: (-counts[intent], intent))
    share = np.full(num_questions, counts[best] / len(intents))
    return Guesses(intents=(best,) * num_questions, confidence=share, in_scope=share)


def tf_idf(texts: Sequence[str], intents: Sequence[str], questions: Sequence[str]) -> Guesses:
    """Fit words and pairs of words, and 2 to 5 letters, by logistic regression.

    Args:
        texts: to learn from.
        intents: of each of them; two or more.
        questions: what is guessed.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require_extra("probe")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    pattern = r"\w+"  # single letters too, such as "i"
    words: Any = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
    letters: Any = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 5),
        sublinear_tf=True,
        min_df=2 if len(texts) > _FEW else 1,
    )
    regression = LogisticRegression(C=_STRENGTH, max_iter=_MOST_ITERATIONS)
    model = make_pipeline(make_union(words, letters), regression)
    with warnings.catch_warnings():
        # What has not converged by then is as accurate, and a little less sure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(texts, intents)
    chance_NK = model.predict_proba(questions)
    best_N = chance_NK.argmax(1)
    confidence = chance_NK[np.arange(len(best_N)), best_N]
    return Guesses(
        intents=tuple(str(model.classes_[index]) for index in best_N),
        confidence=confidence,
        in_scope=confidence,
    )
