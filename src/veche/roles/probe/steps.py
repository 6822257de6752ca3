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


def step_of_tokens(text: str, ends_T: Sequence[int], steps: Sequence[str]) -> NDArray[np.int64]:
    """Return the step that each token belongs to, [T]; `NO_STEP` for breaks.

    A token belongs to where its last character is; one that ends within a character, to where that
    character is. Breaks between steps are found by counting line feeds, which tokenizers keep even
    where they normalise letters.

    Args:
        text: as the tokens spell it.
        ends_T: how many characters of it there are once each token is read.
        steps: which the text joins.
    """
    step_of_character = _step_of_characters(text, steps)
    ends = np.asarray(ends_T, dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    at = np.maximum(ends - 1, starts)
    is_text = at < len(text)
    return np.where(is_text, step_of_character[np.minimum(at, len(text) - 1)], NO_STEP)


def _step_of_characters(text: str, steps: Sequence[str]) -> NDArray[np.int64]:
    """Return the step of each character; a break that a step's token swallowed is the step's."""
    feeds = np.cumsum([step.count("\n") + 1 for step in steps])
    is_feed = np.array([letter == "\n" for letter in text], dtype=bool)
    before = np.cumsum(is_feed) - is_feed
    step = np.searchsorted(feeds, before, side="right")
    is_break = is_feed & np.isin(before + 1, feeds)
    return np.where(is_break | (step >= len(steps)), NO_STEP, step)
