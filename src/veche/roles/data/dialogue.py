"""What makes messages a dialogue, whatever file they come from."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from veche.core.errors import InputError
from veche.roles.data.example import Message

_DIGEST_LETTERS = 16
UNASKED = Message(role="user", content="")
"""What stands before a plain text where a role speaks: nobody asked anything."""


def require_dialogue(where: str, messages: Sequence[Message]) -> None:
    """Refuse messages that no chat template would take.

    A system message may come first; then user and assistant speak in turn, the user first. One
    message of the assistant's alone is a plain text.

    Raises:
        InputError: names `where` and what is wrong.
    """
    if not messages:
        raise InputError(f"{where}: there are no messages", hint="delete the line, or fill it")
    for number, message in enumerate(messages, start=1):
        if not message.content.strip():
            raise InputError(
                f"{where}: message {number}, of {message.role}, is empty",
                hint="delete the line, or fill it",
            )
    spoken = [message.role for message in system_and_turns(messages)[1]]
    wanted = ["user", "assistant"] * len(spoken)
    if spoken != wanted[: len(spoken)] and spoken != ["assistant"]:
        number = next(n for n, role in enumerate(spoken) if role != wanted[n])
        raise InputError(
            f"{where}: user and assistant must speak in turn, the user first, but of "
            f"{', '.join(m.role for m in messages[:8])} "
            f"number {number + 1 + len(messages) - len(spoken)} should be {wanted[number]}'s",
            hint="a system message may only come first",
        )
    if not spoken:
        raise InputError(f"{where}: nobody speaks but the system", hint="add the user's message")


def system_and_turns(messages: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
    """Return the system's text, empty without one, and what user and assistant say."""
    if messages and messages[0].role == "system":
        return messages[0].content, tuple(messages[1:])
    return "", tuple(messages)


def group_of(text: str) -> str:
    """Return a short name for a problem, the same wherever the text is the same."""
    return hashlib.sha256(normal_text(text).encode()).hexdigest()[:_DIGEST_LETTERS]


def problem_of(messages: Sequence[Message]) -> str:
    """Return what a dialogue is about: all but a last answer; a plain text is about itself."""
    spoken = [message.content for message in messages if message.role != "system"]
    is_answered = messages[-1].role == "assistant" and len(spoken) > 1
    return "\n".join(spoken[:-1] if is_answered else spoken)


def normal_text(text: str) -> str:
    """Return a text without differences that mean nothing: case, widths, white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip()
