"""Chats as ShareGPT and its kin write them: "conversations", each turn "from" and "value"."""

from collections.abc import Mapping
from typing import Any

from veche.core.errors import InputError
from veche.roles.data.dialogue import group_of, problem_of, require_dialogue
from veche.roles.data.example import Example, Message, Speaker

_SPEAKERS: dict[Any, Speaker] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
}


def conversation_example(where: str, value: Mapping[str, Any], *, task: str) -> Example:
    """Return what a line says; keys besides "conversations" and "system" are passed over.

    Raises:
        InputError: it is no such conversation.
    """
    turns = value["conversations"]
    if not isinstance(turns, list):
        raise InputError(f"{where}: conversations is no list", hint=_HINT)
    messages = [_message(where, number, turn) for number, turn in enumerate(turns, start=1)]
    system = value.get("system")
    if isinstance(system, str) and system.strip():
        messages.insert(0, Message(role="system", content=system))
    require_dialogue(where, messages)
    return Example(messages=tuple(messages), group=group_of(problem_of(messages)), task=task)


_HINT = 'each turn is {"from": "human" | "gpt" | "system", "value": "…"}'


def _message(where: str, number: int, turn: Any) -> Message:
    speaker = turn.get("from") if isinstance(turn, dict) else None
    text = turn.get("value") if isinstance(turn, dict) else None
    if not isinstance(speaker, str) or speaker not in _SPEAKERS or not isinstance(text, str):
        raise InputError(f"{where}: turn {number} is not as it must be: {turn!r:.80}", hint=_HINT)
    return Message(role=_SPEAKERS[speaker], content=text)
