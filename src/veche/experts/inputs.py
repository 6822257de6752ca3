"""What is to be recorded: prompts, texts and dialogues from a file."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from veche.core.errors import InputError
from veche.core.files import read_text
from veche.core.json_text import parse_json

Kind = Literal["prompts", "texts"]
Speaker = Literal["system", "user", "assistant"]
_SPEAKERS: tuple[Speaker, ...] = ("system", "user", "assistant")
_MAX_LABEL = 80
_DIGEST_LETTERS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one side of a dialogue said."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One document: a text to read, or a dialogue whose answers are read or decoded.

    Attributes:
        name: a digest of its content, counted where contents are equal: the same in any file.
        text: a plain text; None for a dialogue.
        messages: of a dialogue, in order: maybe a system message, then user and assistant in turn.
        labels: what the file says of it besides.
    """

    name: str = ""
    text: str | None = None
    messages: tuple[Message, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def read_items(path: Path, *, kind: Kind = "prompts", text_field: str = "text") -> list[Item]:
    """Read a file of documents.

    A file whose first letter is `{` is JSONL: each line has "messages" (a dialogue), "prompt" or
    `text_field`; its other short fields are labels. Any other file is plain: a prompt a line, or,
    as texts, a text between empty lines.

    Raises:
        InputError: it is missing, empty, or a line is none of these.
    """
    text = read_text(path)
    if text.lstrip().startswith("{"):
        items = [_item(path, number, line, text_field) for number, line in _lines(text)]
    elif kind == "prompts":
        items = [_prompt(line) for _, line in _lines(text)]
    else:
        items = [Item(text=part) for part in _paragraphs(text)]
    if not items:
        raise InputError(f"{path} is empty", hint="write a prompt a line into it")
    return list(_named(items))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []


def _prompt(text: str, labels: Mapping[str, str] | None = None) -> Item:
    return Item(messages=(Message(speaker="user", text=text),), labels=labels or {})


def _item(path: Path, number: int, line: str, text_field: str) -> Item:
    where = f"{path}, line {number}"
    try:
        value = parse_json(line.encode())
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is no JSON object")
    labels = {
        key: str(found)
        for key, found in value.items()
        if key not in ("messages", "prompt", text_field, "id")
        and isinstance(found, str | int | bool)
        and len(str(found)) <= _MAX_LABEL
    }
    if "messages" in value:
        return Item(messages=_messages(where, value["messages"]), labels=labels)
    if isinstance(prompt := value.get("prompt"), str) and prompt.strip():
        return _prompt(prompt, labels)
    if isinstance(text := value.get(text_field), str) and text.strip():
        return Item(text=text, labels=labels)
    raise InputError(
        f"{where} has no messages, no prompt and no text",
        hint=f'write {{"{text_field}": "…"}}, or name the field: --text-field NAME',
    )


def _messages(where: str, value: Any) -> tuple[Message, ...]:
    messages = tuple(_message(where, message) for message in _list_of(where, value))
    spoken = [message for message in messages if message.speaker != "system"]
    if len(messages) - len(spoken) > 1 or (
        messages[0].speaker != "system" and spoken != [*messages]
    ):
        raise InputError(f"{where}: a dialogue has one system message at most, at its beginning")
    wanted = ["user", "assistant"] * len(spoken)
    if not spoken or [message.speaker for message in spoken] != wanted[: len(spoken)]:
        raise InputError(f"{where}: user and assistant must speak in turn, the user first")
    return messages


def _list_of(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: messages is no list, or an empty one")
    return value


def _message(where: str, value: Any) -> Message:
    speaker = value.get("role") if isinstance(value, dict) else None
    text = value.get("content") if isinstance(value, dict) else None
    if speaker not in _SPEAKERS or not isinstance(text, str):
        raise InputError(
            f"{where}: a message is not as it must be",
            hint='each is {"role": "system" | "user" | "assistant", "content": "…"}',
        )
    return Message(speaker=speaker, text=text)


def _named(items: Iterable[Item]) -> Iterator[Item]:
    """Give each item a name by its content; equal ones are counted."""
    seen: Counter[str] = Counter()
    for item in items:
        content = [item.text, [[m.speaker, m.text] for m in item.messages], dict(item.labels)]
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LETTERS]
        seen[digest] += 1
        yield replace(item, name=digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
