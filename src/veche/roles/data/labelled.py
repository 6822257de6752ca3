"""Our own format: an example a line, as JSON, with everything that is known of it.

A line of chat JSONL, {"messages": […]}, is the same format without labels.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.core.errors import InputError
from veche.core.files import atomic_writer
from veche.core.language import Language
from veche.roles.data.dialogue import group_of, problem_of, require_dialogue
from veche.roles.data.example import Example, Message, Speaker

_NEAR = 0.8
_Text = Annotated[str, Field(min_length=1)]


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    role: Speaker
    content: str


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    messages: list[_Turn]
    group: _Text | None = None
    task: _Text | None = None
    language: Language | None = None
    steps: list[_Text] = []
    is_right: bool | None = None
    first_bad_step: Annotated[int, Field(ge=0)] | None = None
    intent: _Text | None = None
    final_answer: _Text | None = None
    author: _Text | None = None
    signals: dict[str, float] = {}


LABELS = frozenset(_Line.model_fields) - {"messages"}


def labelled_example(where: str, value: Mapping[str, Any], *, task: str) -> Example:
    """Return what a line says.

    Keys of others, such as an id, are passed over where a line has none of our labels; beside
    labels they are refused, and so is what looks like a label and is none.

    Args:
        where: "FILE, line N", for errors.
        value: the line.
        task: for lines that name none.

    Raises:
        InputError: something is missing, unknown, of a wrong kind, or contradicts the rest.
    """
    strangers = set(value) - LABELS - {"messages"}
    if LABELS & set(value) or any(_nearest(key) for key in strangers):
        _require_known(where, sorted(strangers))
    else:
        value = {"messages": value["messages"]}
    try:
        line = _Line.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{where}: {_reason(error)}", hint=_HINT) from error
    messages = tuple(Message(role=turn.role, content=turn.content) for turn in line.messages)
    require_dialogue(where, messages)
    rest = line.model_dump(exclude={"messages", "group", "task", "steps"})
    example = Example(
        messages=messages,
        group=line.group or group_of(problem_of(messages)),
        task=line.task or task,
        steps=tuple(line.steps),
        **rest,
    )
    _require_consistent(where, example)
    return example


def line_of(example: Example) -> str:
    """Return an example as a line, without its end; what is not known is left out."""
    value: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in example.messages],
        "group": example.group,
        "task": example.task,
        "language": example.language,
        "steps": list(example.steps),
        "is_right": example.is_right,
        "first_bad_step": example.first_bad_step,
        "intent": example.intent,
        "final_answer": example.final_answer,
        "author": example.author,
        "signals": dict(example.signals),
    }
    known = {key: item for key, item in value.items() if item is not None and item not in ([], {})}
    return json.dumps(known, ensure_ascii=False, allow_nan=False)


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples, a line each, atomically; return how many.

    Raises:
        DiskError: the disk is full or refuses.
    """
    count = 0
    with atomic_writer(path) as file:
        for example in examples:
            file.write(line_of(example).encode() + b"\n")
            count += 1
    return count


_HINT = "see docs/reference/files.md#labelled-examples"


def _require_consistent(where: str, example: Example) -> None:
    judged = {
        "steps": bool(example.steps),
        "is_right": example.is_right is not None,
        "first_bad_step": example.first_bad_step is not None,
    }
    if any(judged.values()) and not example.is_answered:
        names = ", ".join(name for name, is_given in judged.items() if is_given)
        raise InputError(
            f"{where}: {names} are of the assistant's last message, but the user speaks last",
            hint="add the answer to messages, or leave them out",
        )
    if example.steps and "\n".join(example.steps) != example.messages[-1].content:
        raise InputError(
            f"{where}: the last message is not its steps, joined by line breaks",
            hint="let it be so, or leave steps out",
        )
    num_steps, bad = len(example.steps), example.first_bad_step
    if bad is not None and bad >= num_steps:
        raise InputError(
            f"{where}: first_bad_step is {bad}, but there are {num_steps} steps",
            hint="it counts from 0, in steps",
        )


def _require_known(where: str, strangers: Sequence[str]) -> None:
    for key in strangers:
        near = _nearest(key)
        raise InputError(
            f"{where}: there is no label {key[:80]!r}",
            hint=f"did you mean {near}?" if near else f"labels are: {', '.join(sorted(LABELS))}",
        )


def _nearest(key: str) -> str | None:
    return next(iter(difflib.get_close_matches(key, sorted(LABELS), n=1, cutoff=_NEAR)), None)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    given = "" if first["type"] == "missing" else f", not {str(first['input'])[:60]!r}"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}{given}"
