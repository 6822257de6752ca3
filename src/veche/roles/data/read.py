"""Read examples from whatever file holds them: the one way into roles."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veche.core.errors import InputError
from veche.core.files import read_json_object
from veche.roles.data.conversations import conversation_example
from veche.roles.data.dialogue import group_of
from veche.roles.data.example import Example, Message
from veche.roles.data.labelled import labelled_example
from veche.roles.data.lines import json_lines, json_object, numbered_lines
from veche.roles.data.public_sets import (
    Split,
    clinc_examples,
    gsm8k_examples,
    is_clinc,
    mistake_example,
)
from veche.roles.data.voices_heard import transcript_examples

_READ_FROM_FOLDERS = (".jsonl", ".json", ".txt")
_EVENT = {"seq", "kind", "voice", "data"}


def read_examples(path: Path, *, split: Split | None = None) -> list[Example]:
    """Read a file of examples, or every .jsonl, .json and .txt file of a folder.

    What a file holds is told by its first line: chat JSONL ("messages", with our labels or without,
    or "conversations"), a council's transcript, GSM8K's model solutions, traces of BIG-Bench
    Mistake; by its content, clinc150 (a .json file); anything else is plain text, whose paragraphs
    are examples. A line without a task has the file's name for one.

    Args:
        path: the file or folder.
        split: read only this part of a set that its authors split.

    Raises:
        InputError: names the file and the line, what is wrong with it, and what to do.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _READ_FROM_FOLDERS)
        if not files:
            raise InputError(
                f"{path} has no file to read", hint="name a .jsonl, .json or .txt file"
            )
        return [example for file in files for example in read_examples(file, split=split)]
    if path.suffix == ".json":
        return _from_json(path, split)
    if split is not None:
        raise InputError(
            f"{path} was not split by its authors, so it has no part {split!r}",
            hint="leave the part out; veche splits by problem itself",
        )
    first = next(text for _, text in numbered_lines(path) if text.strip() or _is_text(path))
    if not first.lstrip().startswith("{") or _is_text(path):
        return list(_from_text(path))
    return list(_from_lines(path, json_object(f"{path}, line 1", first)))


def _is_text(path: Path) -> bool:
    return path.suffix in (".txt", ".md")


def _from_json(path: Path, split: Split | None) -> list[Example]:
    value = read_json_object(path)
    if not is_clinc(value):
        raise InputError(
            f"{path} is JSON that veche knows no examples in",
            hint="write JSONL, an example a line: see docs/reference/files.md#labelled-examples",
        )
    examples = list(clinc_examples(str(path), value, split=split))
    if not examples:
        raise InputError(f"{path} is empty", hint="download the set again")
    return examples


def _from_lines(path: Path, first: Mapping[str, Any]) -> Iterator[Example]:
    if set(first) == _EVENT:
        yield from transcript_examples(path)
        return
    keys = next((keys for keys in _KEYS if keys <= set(first)), None)
    if keys is None:
        raise InputError(
            f"{path}, line 1 has keys that veche knows no examples in: "
            f"{', '.join(sorted(first))[:200]}",
            hint='write {"messages": [{"role": "user", "content": "…"}, …]} a line',
        )
    for where, value in json_lines(path):
        if missing := keys - set(value):
            raise InputError(
                f"{where} has no {', '.join(sorted(missing))}, unlike the first line",
                hint="all lines of a file are of one format",
            )
        yield from _examples(where, value, task=path.stem)


_KEYS = (
    frozenset({"messages"}),
    frozenset({"conversations"}),
    frozenset({"question", "ground_truth"}),
    frozenset({"input", "steps", "mistake_index"}),
)


def _examples(where: str, value: Mapping[str, Any], *, task: str) -> Iterator[Example]:
    if "messages" in value:
        yield labelled_example(where, value, task=task)
    elif "conversations" in value:
        yield conversation_example(where, value, task=task)
    elif "ground_truth" in value:
        yield from gsm8k_examples(where, value)
    else:
        yield mistake_example(where, value, task=task)


def _from_text(path: Path) -> Iterator[Example]:
    """Yield paragraphs, what stands between empty lines, as texts that the assistant wrote."""
    lines: list[str] = []
    for _, text in [*numbered_lines(path), (0, "")]:
        if text.strip():
            lines.append(text)
        elif lines:
            whole = "\n".join(lines)
            yield Example(
                messages=(Message(role="assistant", content=whole),),
                group=group_of(whole),
                task=path.stem,
            )
            lines = []
