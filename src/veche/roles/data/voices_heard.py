"""Learn from what councils said: the examples in a recorded transcript."""

from collections.abc import Iterator
from pathlib import Path

from veche.core.errors import InputError
from veche.core.language import LANGUAGES
from veche.core.transcript import Event, read_transcript
from veche.roles.data.dialogue import group_of
from veche.roles.data.example import Example, Message

_ANSWERING = ("drafts", "revisions", "synthesis")
"""Steps in which voices answer the question; objections are about drafts."""


def transcript_examples(path: Path) -> list[Example]:
    """Return each voice's answers to a transcript's question, in order; `author` is the voice.

    Nobody knows whether they are right. Voices that stayed silent are left out.

    Raises:
        InputError: the file is no transcript, or has neither question nor answer.
    """
    events = read_transcript(path)
    started = next((event for event in events if event.kind == "RUN_STARTED"), None)
    question = started.data.get("question") if started is not None else None
    if started is None or not isinstance(question, str):
        raise InputError(f"{path} has no question: it does not begin with RUN_STARTED")
    language = started.data.get("language")
    examples = [
        Example(
            messages=(
                Message(role="user", content=question),
                Message(role="assistant", content=text),
            ),
            group=group_of(question),
            task="transcript",
            language=language if language in LANGUAGES else None,
            author=voice,
        )
        for voice, text in _answers(events)
    ]
    if not examples:
        raise InputError(f"{path} has no answer: the run was interrupted before any voice spoke")
    return examples


def _answers(events: list[Event]) -> Iterator[tuple[str | None, str]]:
    for event in events:
        text = event.data.get("text")
        if (
            event.kind == "TEXT_MESSAGE_CONTENT"
            and event.data.get("step") in _ANSWERING
            and isinstance(text, str)
            and text.strip()
        ):
            yield event.voice, text
