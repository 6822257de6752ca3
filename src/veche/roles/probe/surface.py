"""What anyone can see of a text without a model: the rival that every probe has to beat.

Shapes: S steps, F features.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from veche.roles.data.example import Example
from veche.roles.probe.steps import steps_of

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
_WORD = re.compile(r"\w+")
_SIGNS = "=+-*/()<>[]{}\"',.:;?$%"
_PLACES = 12
_SHAPE = (
    "characters",
    "words",
    "word_length",
    "digits",
    "digit_share",
    "numbers",
    "largest_number",
    "last_number",
    "negative_numbers",
    "decimal_numbers",
    "capital_share",
    "punctuation_share",
    "repeated_words",
    "same_as_an_earlier_step",
    "words_of_question",
    "new_numbers",
    "growth",
    *(f"count_{sign}" for sign in _SIGNS),
)
_PLACE = ("place", "log_place", *(f"place_{place}" for place in range(_PLACES)))
_QUESTION = ("question_characters", "question_numbers", "question_largest_number")
STEP_FEATURES = (*_SHAPE, *_PLACE, *_QUESTION)
"""Names of a step's features; counts and sizes are log(1 + n)."""
ANSWER_FEATURES = (
    "steps",
    "log_steps",
    *_QUESTION,
    *(f"{kind}_{name}" for kind in ("mean", "most", "last") for name in _SHAPE),
)
"""Names of a whole answer's features."""
PLAIN = frozenset(
    {"characters", "words", "digits", "numbers", "steps", "log_steps", *_PLACE}
    | {f"mean_{name}" for name in ("characters", "words", "digits", "numbers")}
)
"""The plainest of both: length, digits, how many steps, which one."""


def step_surface(example: Example) -> NDArray[np.float64]:
    """Return the features of each step, [S, F], as `STEP_FEATURES` names them.

    A step is seen with the question and the steps before it, never with those behind it.
    """
    steps = steps_of(example)
    question = _question_features(_question(example))
    shapes = _shapes(steps, _question(example))
    return np.array(
        [[*shape, *_place(index), *question] for index, shape in enumerate(shapes)], np.float64
    )


def answer_surface(example: Example) -> NDArray[np.float64]:
    """Return the features of a whole answer, [F], as `ANSWER_FEATURES` names them."""
    steps = steps_of(example)
    shapes = np.array(_shapes(steps, _question(example)))
    return np.concatenate(
        [
            [len(steps), math.log1p(len(steps))],
            _question_features(_question(example)),
            shapes.mean(0),
            shapes.max(0),
            shapes[-1],
        ]
    )


def _question(example: Example) -> str:
    said = [message.content for message in example.messages[:-1] if message.role == "user"]
    return said[-1] if said else ""


def _shapes(steps: Sequence[str], question: str) -> list[list[float]]:
    known_words = set(_words(question))
    known_numbers = set(_NUMBER.findall(question))
    seen_words: set[str] = set()
    rows = []
    for index, step in enumerate(steps):
        words, numbers = _words(step), _NUMBER.findall(step)
        before = steps[index - 1] if index else ""
        rows.append(
            [
                *_sizes(step, words, numbers),
                _share(words, seen_words),
                float(step in steps[:index]),
                _share(words, known_words),
                math.log1p(len(set(numbers) - known_numbers)),
                math.log1p(len(step)) - math.log1p(len(before)),
                *(math.log1p(step.count(sign)) for sign in _SIGNS),
            ]
        )
        seen_words.update(words)
        known_numbers.update(numbers)
    return rows


def _sizes(step: str, words: Sequence[str], numbers: Sequence[str]) -> list[float]:
    length = max(len(step), 1)
    digits = sum(letter.isdigit() for letter in step)
    marks = sum(not (letter.isalnum() or letter.isspace()) for letter in step)
    sizes = [_size(number) for number in numbers]
    return [
        math.log1p(len(step)),
        math.log1p(len(words)),
        sum(map(len, words)) / max(len(words), 1),
        math.log1p(digits),
        digits / length,
        math.log1p(len(numbers)),
        max(sizes, default=0.0),
        sizes[-1] if sizes else 0.0,
        math.log1p(sum(number.startswith("-") for number in numbers)),
        math.log1p(sum("." in number for number in numbers)),
        sum(letter.isupper() for letter in step) / length,
        marks / length,
    ]


def _question_features(question: str) -> list[float]:
    numbers = _NUMBER.findall(question)
    return [
        math.log1p(len(question)),
        math.log1p(len(numbers)),
        max(map(_size, numbers), default=0.0),
    ]


def _place(index: int) -> list[float]:
    return [
        float(index),
        math.log1p(index),
        *(float(index == place) for place in range(_PLACES)),
    ]


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _share(words: Sequence[str], known: set[str]) -> float:
    return sum(word in known for word in words) / max(len(words), 1)


def _size(number: str) -> float:
    """Return log(1 + |n|), from the digits alone: a number may be longer than a float holds."""
    digits = re.sub(r"\D", "", number.partition(".")[0]) or "0"
    return math.log1p(int(digits[:12])) + math.log(10) * max(len(digits) - 12, 0)
