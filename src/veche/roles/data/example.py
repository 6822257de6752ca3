"""One thing to learn from, or to be measured on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from veche.core.language import Language

Speaker = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a dialogue, spelled as chat templates spell it."""

    role: Speaker
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A dialogue, and what is known of it.

    Attributes:
        messages: the turns; what is learnt or judged is the last one of the assistant's. A question
            without an answer ends with the user's.
        group: the problem that it belongs to: a split never parts a group.
        task: where it comes from ("gsm8k", "dyck_languages", "dates", …): for tests out of domain.
        language: of the text; None where nobody said.
        steps: the last message, cut into its steps, in order: line breaks join them to the whole
            message; empty where it has none.
        is_right: whether the last message's answer is right; None where nobody knows.
        first_bad_step: index into `steps` of the first wrong one; None where none is wrong, or
            nobody knows (`is_right` tells which). An answer can be right in spite of a wrong step.
        intent: what is being asked, a label; None where nobody said.
        final_answer: the right answer, for a checker to compare with; None where there is none.
        author: who wrote the last message: a model or a voice; None where nobody said.
        signals: numbers known of the last message since it was written, by name: "mean_logprob",
            "disagreement".
    """

    messages: tuple[Message, ...]
    group: str
    task: str
    language: Language | None = None
    steps: tuple[str, ...] = ()
    is_right: bool | None = None
    first_bad_step: int | None = None
    intent: str | None = None
    final_answer: str | None = None
    author: str | None = None
    signals: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def is_answered(self) -> bool:
        """Whether the last word is the assistant's."""
        return self.messages[-1].role == "assistant"
