"""Dialogues from which an adapter learns to report: their targets follow from labels."""

import re
from collections.abc import Sequence
from dataclasses import replace

from veche.core.errors import InputError
from veche.roles.data.example import Example, Message
from veche.roles.probe.steps import steps_of
from veche.roles.reporter.reading import reading_text
from veche.roles.reporter.report import MAX_CONFIDENCE, NextFocus, Report


def report_examples(examples: Sequence[Example]) -> list[Example]:
    """Return a dialogue for each labelled answer: what is shown, and the report that is right.

    Groups, tasks and labels stay, so that a split of them is a split of these.

    Raises:
        InputError: an example has no answer, or nobody said whether it is right.
    """
    return [_dialogue(number, example) for number, example in enumerate(examples, start=1)]


def right_report(example: Example) -> Report:
    """Return the report that an example's labels ask for.

    `confidence` is 9 where the answer is right, 0 where it is wrong: what a model learns to expect
    of the digit is then how likely the answer is right. Where an answer is wrong and its first
    wrong step isn't known, none is named, and the question is to be looked at.

    Raises:
        ValueError: nobody said whether the answer is right.
    """
    if example.is_right is None:
        raise ValueError("nobody said whether the answer is right")
    bad = example.first_bad_step
    focus: NextFocus = "answer" if example.is_right else "question"
    return Report(
        intent=intent_of(example),
        contradictions=() if bad is None else (bad,),
        first_bad_step=bad,
        confidence=MAX_CONFIDENCE if example.is_right else 0,
        next_focus=focus if bad is None else "step",
    )


def intent_of(example: Example) -> str:
    """Return the label of what is asked, as reports spell it; the task where there is none."""
    spelt = re.sub(r"[^a-z0-9_ ]+", "_", (example.intent or example.task).lower()).strip("_ ")
    return spelt[:40] if spelt[:1].isalpha() else f"task {spelt}"[:40].strip()


def _dialogue(number: int, example: Example) -> Example:
    if not example.is_answered or example.is_right is None:
        raise InputError(
            f"example {number}, of {example.group!r}, is no answer that somebody called right or "
            "wrong",
            hint="reports are learnt from labelled answers: "
            "docs/reference/files.md#labelled-examples",
        )
    if example.first_bad_step is not None and example.first_bad_step >= len(steps_of(example)):
        raise InputError(f"example {number}: its steps are not those that it is cut into")
    report = right_report(example).as_json()
    return replace(
        example,
        messages=(
            Message(role="user", content=reading_text(example)),
            Message(role="assistant", content=report),
        ),
        steps=(),
        first_bad_step=None,
    )
