"""The folder here in which a build between remote folders is staged."""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veche.core.errors import OutputError
from veche.core.files import PARTIAL_SUFFIX, read_json_object, remove_partials, write_json
from veche.core.paths import home

_LOCK_NAME = ".veche_lock"


class FileJournal:
    """Which files of a remote folder were moved, and in which version: a JSON file.

    NOTE: a file that is being sent has the entry None, so that after a crash every file that this
    build may have left there is known.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier run noted."""
        self._path = path
        self.entries: dict[str, Any] = read_json_object(path) if path.is_file() else {}

    def note(self, name: str, entry: dict[str, Any] | None) -> None:
        """Keep, at once and on the disk, what is known of a file."""
        self.entries[name] = entry
        write_json(self._path, self.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is staged, and where.

    Attributes:
        folder: of this source and target alone.
        source: the source's files.
        grown: the target, before it is sent.
        fetched: what of the source is here.
        stored: what of the target is there.
    """

    folder: Path
    source: Path
    grown: Path
    fetched: FileJournal
    stored: FileJournal

    @property
    def has_begun(self) -> bool:
        """Whether a build was begun here, beyond fetching."""
        half = self.grown.with_name(self.grown.name + PARTIAL_SUFFIX)
        return self.grown.exists() or half.exists() or bool(self.stored.entries)


@contextmanager
def staged(
    source: str, target: str, *, at: Path | None, resume: bool, keep: bool
) -> Iterator[Stage]:
    """Yield the stage of a source and a target, locked; it goes when the block succeeds.

    After an error it stays for `resume`, if anything is worth it.

    Args:
        source: path or URL.
        target: path or URL.
        at: the folder that holds stages; by default in VECHE_HOME.
        resume: continue what is there; fetched files are used again at any rate.
        keep: do not remove it.

    Raises:
        OutputError: a build is at work there, or was interrupted and is not to be continued.
    """
    key = hashlib.sha256("\n".join(map(_identity, (source, target))).encode()).hexdigest()[:16]
    folder = (at or home() / "staging").absolute() / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_NAME).open("w") as lock:
        _lock(lock.fileno(), folder)
        remove_partials(folder)
        stage = Stage(
            folder=folder,
            source=folder / "source",
            grown=folder / "grown",
            fetched=FileJournal(folder / "fetched.json"),
            stored=FileJournal(folder / "stored.json"),
        )
        if stage.has_begun and not resume:
            raise OutputError(
                f"{folder} holds an interrupted or kept build of {target}",
                hint="continue it with --resume, or remove that folder",
            )
        try:
            yield stage
        except BaseException:
            if not stage.has_begun and not stage.fetched.entries:
                _remove(folder)
            raise
        if not keep:
            _remove(folder)


def _identity(address: str) -> str:
    return address.rstrip("/") if "://" in address else str(Path(address).resolve())


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another build is at work in {folder}", hint="wait for it, or choose another --staging"
        ) from error


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)
    with suppress(OSError):  # other stages are in it, or it is not ours
        folder.parent.rmdir()
