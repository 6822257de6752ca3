"""What a question is told by its words alone: n-grams of words and letters, weighed by rarity.

Shapes: N texts, V n-grams, K intents.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_WORDS = (1, 2)
_LETTERS = range(2, 6)
_LEAST_TEXTS = 2
"""Letters that one text alone has tell nothing of others."""
Weighed = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Numbers of the n-grams that a text has, and their weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NGrams:
    """The n-grams of some texts.

    A text's weights are (1 + ln tf) · idf, idf = ln((1 + N) / (1 + df)) + 1, scaled to length 1 for
    words and for letters apart: what scikit-learn's TfidfVectorizer calls sublinear tf, smooth idf
    and norm l2 (analyzers "word" and "char_wb").

    Attributes:
        names: V n-grams; those of letters begin with a tab.
        idf: [V].
    """

    names: tuple[str, ...]
    idf: NDArray[np.float32]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "NGrams":
        """Return the n-grams of `texts`: all of words, and those of letters that two texts have."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(_n_grams(text)))
        names = sorted(
            name
            for name, count in counts.items()
            if not _is_of_letters(name) or count >= _LEAST_TEXTS
        )
        count_V = np.array([counts[name] for name in names], np.float64)
        idf = np.log((1 + len(texts)) / (1 + count_V)) + 1
        return cls(names=tuple(names), idf=idf.astype(np.float32))

    def weighed(self, texts: Iterable[str]) -> list[Weighed]:
        """Return the n-grams of each text that are known, and their weights."""
        number = {name: index for index, name in enumerate(self.names)}
        return [self._weighed(text, number) for text in texts]

    def _weighed(self, text: str, number: dict[str, int]) -> Weighed:
        counts = Counter(name for name in _n_grams(text) if name in number)
        index = np.array([number[name] for name in counts], np.int64)
        is_letters = np.array([_is_of_letters(name) for name in counts], bool)
        weight = self.idf[index] * np.array([1 + math.log(n) for n in counts.values()], np.float32)
        for part in (is_letters, ~is_letters):
            weight[part] /= max(float(np.linalg.norm(weight[part])), 1e-12)
        return index, weight.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A linear reading of n-grams.

    Attributes:
        n_grams: what is read.
        weight: [V, K]; in half precision, which is finer than what they are fitted to.
        bias: [K].
    """

    n_grams: NGrams
    weight: NDArray[np.float16]
    bias: NDArray[np.float32]

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return a score for each intent, [N, K]."""
        scores = [
            weight @ self.weight[index].astype(np.float32)
            for index, weight in self.n_grams.weighed(texts)
        ]
        return np.asarray(scores, np.float64).reshape(len(texts), len(self.bias)) + self.bias


def fit_wording(texts: Sequence[str], label_N: NDArray[np.int64], strength: float = 1.0) -> Wording:
    """Fit a linear support vector machine, one intent against the rest.

    Args:
        texts: what was asked.
        label_N: the number of its intent, 0 to K − 1; each comes at least once.
        strength: inverse strength C of the L2 penalty.
    """
    from scipy.sparse import csr_matrix
    from sklearn.svm import LinearSVC

    n_grams = NGrams.of(texts)
    weighed = n_grams.weighed(texts)
    starts = np.cumsum([0, *(len(index) for index, _ in weighed)])
    features = csr_matrix(
        (
            np.concatenate([weight for _, weight in weighed]),
            np.concatenate([index for index, _ in weighed]),
            starts,
        ),
        shape=(len(texts), len(n_grams.names)),
    )
    model = LinearSVC(C=strength, random_state=0).fit(features, label_N)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two intents: one row, of the second
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    return Wording(
        n_grams=n_grams, weight=weight.T.astype(np.float16), bias=bias.astype(np.float32)
    )


def _n_grams(text: str) -> Iterator[str]:
    """Yield n-grams of words, then of the letters of each word with its blanks."""
    text = text.lower()
    words = _WORD.findall(text)
    for length in _WORDS:
        for at in range(len(words) - length + 1):
            yield " ".join(words[at : at + length])
    for word in text.split():
        padded = f" {word} "
        for length in _LETTERS:
            for at in range(max(len(padded) - length, 0) + 1):
                yield "\t" + padded[at : at + length]
            if length >= len(padded):
                break


def _is_of_letters(name: str) -> bool:
    return name.startswith("\t")
