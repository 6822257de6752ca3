"""What happened in a council: events that are only ever appended."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, get_args

from veche.core.errors import InputError, OutputError
from veche.core.files import disk_error

EventKind = Literal[
    "RUN_STARTED",
    "STEP_STARTED",
    "TEXT_MESSAGE_CONTENT",
    "STATE_DELTA",
    "STEP_FINISHED",
    "RUN_FINISHED",
    "RUN_ERROR",
]
OnEvent = Callable[["Event"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened; kinds are spelled as in AG-UI.

    Attributes:
        seq: 0, 1, 2, … without a gap.
        kind: what happened.
        voice: whose event it is; None where it is everyone's.
        data: the rest, as JSON values.
    """

    seq: int
    kind: EventKind
    voice: str | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what a line of the transcript holds."""
        return {"seq": self.seq, "kind": self.kind, "voice": self.voice, "data": self.data}


class Transcript:
    """The events of one run, in memory and, when a path is given, on disk as JSON lines.

    NOTE: every event is flushed as one line before anyone is told of it, so whatever was shown
    is in the file, and an interrupted run leaves a valid beginning; the next run in its place
    moves that aside, as transcript.unfinished.jsonl.

    Raises:
        OutputError: the file exists already, and is not of an interrupted run.
    """

    def __init__(self, path: Path | None = None, *, on_event: OnEvent | None = None) -> None:
        self.events: list[Event] = []
        self._path = path
        self._on_event = on_event
        self._file = None if path is None else _open_new(path)

    def append(self, kind: EventKind, voice: str | None = None, **data: Any) -> Event:
        """Add an event, write it, then tell whoever listens."""
        event = Event(seq=len(self.events), kind=kind, voice=voice, data=data)
        self.events.append(event)
        if self._file is not None and self._path is not None:
            try:
                self._file.write(json.dumps(event.as_dict(), ensure_ascii=False) + "\n")
                self._file.flush()
            except OSError as error:
                raise disk_error(error, self._path) from error
        if self._on_event is not None:
            self._on_event(event)
        return event

    def close(self) -> None:
        """Close the file.

        Raises:
            DiskError: the disk refused what was still to be written.
        """
        if self._file is not None and self._path is not None:
            try:
                self._file.close()
            except OSError as error:
                raise disk_error(error, self._path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_transcript(path: Path) -> list[Event]:
    """Read a transcript; one that was interrupted reads as far as it got.

    Raises:
        InputError: the file is missing, is no transcript, or a line is damaged or cut short.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a transcript: it is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not text:
        raise InputError(f"{path} is empty: the run was interrupted before it began")
    # Not splitlines(): a text may hold U+2028 and other ends of line that JSON does not escape.
    *lines, rest = text.split("\n")
    if rest:
        raise InputError(
            f"{path} line {len(lines) + 1} is cut short: the run was interrupted while writing",
            hint="delete the last line to read the rest",
        )
    return [_event(path, seq, line) for seq, line in enumerate(lines)]


def _event(path: Path, seq: int, line: str) -> Event:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} line {seq + 1} is damaged: {error}") from error
    if not isinstance(value, dict) or set(value) != {"seq", "kind", "voice", "data"}:
        raise InputError(f"{path} line {seq + 1} is not an event of a transcript")
    if value["seq"] != seq:
        raise InputError(
            f"{path} line {seq + 1} has seq {value['seq']!r}, not {seq}: events are missing"
        )
    is_sound = (
        value["kind"] in get_args(EventKind)
        and isinstance(value["voice"], str | None)
        and isinstance(value["data"], dict)
    )
    if not is_sound:
        raise InputError(f"{path} line {seq + 1} is damaged: {line[:80]}")
    return Event(**value)


def _is_unfinished(content: bytes) -> bool:
    """Tell a run that was interrupted, which may be asked again, from everything else."""
    is_ours = not content or content.startswith(b'{"seq": 0, "kind": "RUN_STARTED"')
    return is_ours and b'"kind": "RUN_FINISHED"' not in content


def require_new(folder: Path, *names: str) -> None:
    """Refuse a folder that holds a finished run's files, before anything is computed.

    Raises:
        OutputError: one of `names` exists there, and is no transcript of an interrupted run.
    """
    for path in (folder / name for name in names):
        is_spare = path.suffix == ".jsonl" and path.is_file() and _is_unfinished(path.read_bytes())
        if path.exists() and not is_spare:
            raise OutputError(
                f"{path} exists, and veche overwrites nothing", hint="choose another folder"
            )


def _open_new(path: Path) -> IO[str]:
    if path.parent.is_file():
        raise OutputError(f"{path.parent} is a file, not a folder", hint="choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and _is_unfinished(path.read_bytes()):
            path.replace(path.with_suffix(".unfinished.jsonl"))
        return path.open("x", encoding="utf-8", newline="\n")
    except FileExistsError as error:
        raise OutputError(
            f"{path} exists, and veche overwrites nothing", hint="choose another file"
        ) from error
    except OSError as error:
        raise disk_error(error, path) from error
