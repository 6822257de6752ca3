"""Read what is being asked: an intent, how sure, and whether it is one of the known ones at all.

Shapes: N questions, F features (of states), K intents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.experts.metrics import softmax
from veche.roles.data.example import Example
from veche.roles.intent.regression import LinearScores
from veche.roles.intent.wording import Wording

IN_SCOPE = 0.5
"""From this probability on, a question counts as one of the known intents."""
RUNNERS_UP = 3
_LARGEST = 1e30
"""No fit gives more, and scores of more would be no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one question was read as.

    Attributes:
        intent: the likeliest of the known ones.
        confidence: its probability, if it is one of them.
        in_scope: the probability that it is one of them.
        runners_up: the next likeliest intents, and their probabilities.
    """

    intent: str
    confidence: float
    in_scope: float
    runners_up: tuple[tuple[str, float], ...]

    @property
    def is_in_scope(self) -> bool:
        """Whether it counts as one of the known intents."""
        return self.in_scope >= IN_SCOPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """P(in scope) = σ(slope · x + bias) of the winner's score x."""

    slope: float
    bias: float

    def probability(self, logits_NK: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability that each question is of a known intent, [N]."""
        odds_N = self.slope * logits_NK.max(-1) + self.bias
        return np.asarray(0.5 * (1 + np.tanh(odds_N / 2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentReader:
    """Two linear readings of a question, joined: of the model's states, and of the words.

    The logit of an intent is share_0 · (its score by states) + share_1 · (its score by words).

    Attributes:
        intents: K names, sorted.
        layers: whose states are read; see `read_states`.
        states: scores by states.
        words: scores by words.
        shares: of both, fitted so that the softmax of the logits is calibrated.
        scope: tells known intents from everything else.
    """

    intents: tuple[str, ...]
    layers: tuple[int, ...]
    states: LinearScores
    words: Wording
    shares: tuple[float, float]
    scope: Scope

    def __post_init__(self) -> None:
        """Refuse parts that don't fit each other."""
        idf_V = self.words.n_grams.idf
        parts = (self.states.weight, self.states.bias, self.words.weight, self.words.bias, idf_V)
        counts = {len(self.states.weight), len(self.states.bias), self.words.weight.shape[-1]}
        if counts != {len(self.intents)} or len(self.intents) < 2 or not self.layers:
            raise InputError(f"{len(self.intents)} intents don't fit scores of {sorted(counts)}")
        if not len(self.words.weight) == len(self.words.n_grams.names) == len(idf_V):
            raise InputError("its n-grams are not as many as their weights")
        if self.states.weight.shape[1] % (2 * len(self.layers)):
            raise InputError(f"its weights don't fit states of {len(self.layers)} layers")
        numbers = (*self.shares, self.scope.slope, self.scope.bias)
        is_small = all(abs(x) <= _LARGEST for x in numbers)
        if not is_small or not all(np.isfinite(x).all() for x in parts):
            raise InputError("its weights are not finite numbers")

    def logits(self, texts: Sequence[str], states_NF: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return a logit for each intent, [N, K].

        Args:
            texts: what was asked.
            states_NF: of `read_states`, with the reader's own layers.

        Raises:
            InputError: the states are not of as many layers, or not as wide, as those it learnt.
        """
        if states_NF.shape != (len(texts), self.states.weight.shape[1]):
            raise InputError(
                f"states {states_NF.shape} were read of {len(texts)} questions, and the reader "
                f"takes {self.states.weight.shape[1]} numbers of each",
                hint=f"read them with the layers {', '.join(map(str, self.layers))} of the model "
                "that it was trained on",
            )
        by_states_NK, by_words_NK = self.states.scores(states_NF), self.words.scores(texts)
        return self.shares[0] * by_states_NK + self.shares[1] * by_words_NK

    def read(self, texts: Sequence[str], states_NF: NDArray[np.float32]) -> list[Reading]:
        """Return what each question is read as; see `logits`."""
        logits_NK = self.logits(texts, states_NF)
        chance_NK, in_scope_N = softmax(logits_NK), self.scope.probability(logits_NK)
        return [
            self._reading(chance_K, float(in_scope))
            for chance_K, in_scope in zip(chance_NK, in_scope_N, strict=True)
        ]

    def _reading(self, chance_K: NDArray[np.float64], in_scope: float) -> Reading:
        order = np.argsort(-chance_K, kind="stable")[: 1 + RUNNERS_UP]
        best, *others = [(self.intents[index], float(chance_K[index])) for index in order]
        return Reading(
            intent=best[0], confidence=best[1], in_scope=in_scope, runners_up=tuple(others)
        )


def question_of(example: Example) -> str:
    """Return the last thing that the user asked.

    Raises:
        InputError: the user says nothing.
    """
    asked = [message.content for message in example.messages if message.role == "user"]
    if not asked:
        raise InputError(f"the user asks nothing in {example.messages[0].content[:80]!r}")
    return asked[-1]
