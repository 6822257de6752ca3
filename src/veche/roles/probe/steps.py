"""Where the steps of a text are, and which of its tokens belong to each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.roles.data.example import Example

NO_STEP = -1
"""Of a token that is nothing but a break between steps, or no text at all."""


def steps_of(example: Example) -> tuple[str, ...]:
    """Return what is read of an example, step by step.

    Its steps; of an answer that was not cut, its lines; of a question without an answer, the
    question itself.

    Raises:
        InputError: there is nothing to read.
    """
    if not example.messages:
        raise InputError("an example has no message: there is nothing to read")
    last = example.messages[-1]
    if last.role == "assistant":
        steps = example.steps or tuple(last.content.split("\n"))
    else:
        steps = (last.content,)
    steps = tuple(step.strip() for step in steps if step.strip())
    if not steps:
        raise InputError(
            f"the last message of an example of {example.group!r} is empty: nothing to read"
        )
    return steps


def joined(steps: Sequence[str]) -> str:
    """Return the text that is read: each step ends with a break."""
    return "".join(f"{step}\n" for step in steps)


def cut(text: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the steps of a text that was just written, its lines, and the step of each character.

    Empty lines are no steps; white space around a line belongs to none.
    """
    owner = np.full(len(text), NO_STEP, dtype=np.int64)
    steps: list[str] = []
    start = 0
    for line in text.split("\n"):
        if step := line.strip():
            first = start + line.index(step)
            owner[first : first + len(step)] = len(steps)
            steps.append(step)
        start += len(line) + 1
    return tuple(steps), owner


def step_of_characters(text: str, steps: Sequence[str]) -> NDArray[np.int64]:
    """Return the step of each character of a text that `joined` made; `NO_STEP` for breaks.

    Breaks are found by counting line feeds, which tokenizers keep even where they normalise
    letters, so that the text is not quite what they were given.
    """
    feeds = np.cumsum([step.count("\n") + 1 for step in steps])
    is_feed = np.array([letter == "\n" for letter in text], dtype=bool)
    before = np.cumsum(is_feed) - is_feed
    step = np.searchsorted(feeds, before, side="right")
    is_break = is_feed & np.isin(before + 1, feeds)
    return np.where(is_break | (step >= len(steps)), NO_STEP, step)


def step_of_tokens(ends_T: Sequence[int], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the step that each token belongs to, [T]; `NO_STEP` for breaks.

    A token belongs to where its last character is; one that ends within a character, to where that
    character is; one that is no text, to no step.

    Args:
        ends_T: how many characters of the text there are once each token is read.
        owner: the step of each character.
    """
    if not len(ends_T) or not len(owner):
        return np.full(len(ends_T), NO_STEP, dtype=np.int64)
    ends = np.asarray(ends_T, dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    at = np.maximum(ends - 1, starts)
    return np.where(at < len(owner), owner[np.minimum(at, len(owner) - 1)], NO_STEP)
