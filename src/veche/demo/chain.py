"""Run stages in order, skip those whose inputs have not changed, and remember what each took."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from veche.core.errors import OutputError
from veche.core.files import read_json_object, write_json
from veche.core.peak_memory import peak_memory_bytes

RECORD_NAME = ".veche_demo.json"
"""Marks a folder as the demo's own, and holds what each stage was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A step of the chain.

    Attributes:
        name: how it is called, also in messages.
        outputs: the files or folders that it makes.
        settings: what it depends on, besides the stages before it and veche's own code.
        run: does the work; called only when something changed.
    """

    name: str
    outputs: tuple[Path, ...]
    settings: Any
    run: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage took.

    Attributes:
        name: the stage.
        seconds: wall time when it was last run.
        peak_memory_bytes: highest resident memory of the process up to its end.
        was_skipped: whether its outputs of an earlier run were still right.
    """

    name: str
    seconds: float
    peak_memory_bytes: int
    was_skipped: bool


class Chain:
    """Stages whose results lie in one folder.

    NOTE: a stage's key is a hash of its settings, of veche's code and of the key before it; so a
    change anywhere runs that stage and all behind it again, and nothing else. A stage is struck
    off the record before it runs, so an interrupted one is never taken for done.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder.

        Raises:
            OutputError: it holds something that is not the demo's.
        """
        self._record = folder / RECORD_NAME
        if not self._record.is_file():
            if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
                raise OutputError(
                    f"{folder} holds something that the demo did not make",
                    hint="choose another folder with --out",
                )
            write_json(self._record, {})
        self._done: dict[str, Any] = read_json_object(self._record)
        self._key = code_hash("veche")

    def run(self, stage: Stage) -> StageResult:
        """Run a stage, or find that its outputs are still right."""
        content = json.dumps([self._key, stage.name, stage.settings], sort_keys=True, default=str)
        self._key = hashlib.sha256(content.encode()).hexdigest()
        known = self._done.get(stage.name, {})
        if known.get("key") == self._key and all(path.exists() for path in stage.outputs):
            return StageResult(
                name=stage.name,
                seconds=known["seconds"],
                peak_memory_bytes=known["peak_memory_bytes"],
                was_skipped=True,
            )
        if self._done.pop(stage.name, None) is not None:
            write_json(self._record, self._done)
        started = time.perf_counter()
        stage.run()
        result = StageResult(
            name=stage.name,
            seconds=round(time.perf_counter() - started, 2),
            peak_memory_bytes=peak_memory_bytes(),
            was_skipped=False,
        )
        self._done[stage.name] = {
            "key": self._key,
            "seconds": result.seconds,
            "peak_memory_bytes": result.peak_memory_bytes,
        }
        write_json(self._record, self._done)
        return result


@cache
def code_hash(package: str) -> str:
    """Return a hash of a package's own files: results of other code are not these results."""
    digest = hashlib.sha256()
    for file in _files(resources.files(package)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(folder: Traversable) -> list[Traversable]:
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found += _files(entry)
        elif entry.is_file():
            found.append(entry)
    return found
