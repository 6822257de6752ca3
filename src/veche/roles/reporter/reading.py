"""What the observer is shown: a question, and the steps of an answer with their numbers."""

from collections.abc import Sequence

from veche.core.language import Language, Phrase
from veche.roles.data.dialogue import problem_of
from veche.roles.data.example import Example
from veche.roles.probe.steps import steps_of

_READING: Phrase = {
    "en": "Question: {question}\n\nReasoning:\n{steps}",
    "ru": "Вопрос: {question}\n\nРассуждение:\n{steps}",
}


def reading_text(example: Example, language: Language | None = None) -> str:
    """Return an answered example as the observer reads it.

    Args:
        example: its steps are shown, or, where it has none, its lines.
        language: of the words around it; None is the example's own, or English.
    """
    return _READING[language or example.language or "en"].format(
        question=problem_of(example.messages), steps=numbered(steps_of(example))
    )


def numbered(steps: Sequence[str]) -> str:
    """Return steps on lines of their own, numbered from 1."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))
