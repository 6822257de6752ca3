"""A file of answers that grows question by question, and is gone on with after an interruption."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from veche.core.errors import OutputError
from veche.core.files import disk_error, read_json_object, write_json
from veche.roles.data.example import Example
from veche.roles.data.labelled import line_of
from veche.roles.data.lines import json_object
from veche.roles.data.read import read_examples

SETTINGS_SUFFIX = ".settings.json"


class AnswerFile:
    """Labelled JSONL, beside a file that says how the answers came about.

    NOTE: the answers to one question are written together, or not at all: what the disk takes of
    them before it is full is taken back, and a line that a killed process left cut short is cut
    off, with the whole lines of the question before it: they may be its own.

    Raises:
        OutputError: the file is of other settings, or not of this kind.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings_path = path.with_name(path.name + SETTINGS_SUFFIX)
        if path.exists():
            self._require_same(settings)
            _cut(path)
        else:
            write_json(self._settings_path, settings)
        has_any = path.exists() and path.stat().st_size > 0
        self.examples: list[Example] = read_examples(path) if has_any else []
        """What was there when the file was opened."""

    @property
    def groups(self) -> frozenset[str]:
        """Questions that have been answered."""
        return frozenset(example.group for example in self.examples)

    def append(self, examples: Iterable[Example]) -> None:
        """Write the answers to one question.

        Raises:
            DiskError: the disk refuses; nothing of them is in the file.
        """
        content = "".join(f"{line_of(example)}\n" for example in examples).encode()
        try:
            with self._path.open("ab", buffering=0) as file:
                start = file.tell()
                try:
                    rest = memoryview(content)
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)
                    raise
        except OSError as error:
            raise disk_error(error, self._path) from error

    def _require_same(self, settings: Mapping[str, Any]) -> None:
        if not self._settings_path.is_file():
            raise OutputError(
                f"{self._path} exists, and nothing says how it was made",
                hint="choose another file: --out FILE",
            )
        before = read_json_object(self._settings_path)
        for key in sorted({*before, *settings}):
            if before.get(key) != settings.get(key):
                raise OutputError(
                    f"{self._path} was begun with {key} {before.get(key)!r:.80}, not "
                    f"{settings.get(key)!r:.80}",
                    hint="give the same settings to go on with it, or another file: --out FILE",
                )


def _cut(path: Path) -> None:
    """Cut off a last line without an end, and the lines before it that may be its question's."""
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
    if sum(len(line) + 1 for line in lines) == len(content):
        return
    groups = [
        json_object(f"{path}, line {number}", line.decode()).get("group")
        for number, line in enumerate(lines, start=1)
    ]
    while lines and groups[len(lines) - 1] == groups[-1]:
        lines.pop()
    try:
        with path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in lines))
    except OSError as error:
        raise disk_error(error, path) from error
