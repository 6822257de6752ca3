"""The folder in which a build is at work, which becomes the target by one rename."""

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veche import __version__
from veche.checkpoint.reader import Checkpoint
from veche.core.errors import OutputError, VecheError
from veche.core.files import (
    PARTIAL_SUFFIX,
    disk_error,
    is_partial,
    read_json_object,
    remove_partials,
    sync_folder,
    write_json,
)

JOURNAL_NAME = ".veche_journal.json"
_LOCK_NAME = ".veche_lock"
WORK_NAMES = (JOURNAL_NAME, _LOCK_NAME)
"""Files of a build at work, which no source's may replace."""


@contextmanager
def workshop(target: Path, key: str, *, resume: bool, discard_stale: bool) -> Iterator[Path]:
    """Yield the folder to work in, locked; it becomes `target` when the block succeeds.

    NOTE: it is `target`.partial, with a journal that names what is being built, and without a
    config.json until all else is there: no reader takes it for a model. The journal leaves last,
    so that what a crash left is always known: a journal in `target` means that all is done.

    Args:
        target: the folder to make.
        key: of everything that the result depends on.
        resume: continue an interrupted build of the same key.
        discard_stale: begin anew where the interrupted build was of another key.

    Raises:
        OutputError: another build is at work there, or something else is.
        DiskError: the disk is full or refuses.
    """
    folder = target.with_name(target.name + PARTIAL_SUFFIX)
    try:
        _require_own_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _take_over(folder, key, resume=resume, discard_stale=discard_stale)
            write_json(folder / JOURNAL_NAME, {"key": key})
            yield folder
            sync_folder(folder)
            if target.is_dir():
                target.rmdir()
            folder.rename(target)
            sync_folder(target.parent)
            _clear(target)
    except OSError as error:
        raise disk_error(error, target) from error


def work_key(checkpoint: Checkpoint, content: Mapping[str, Any]) -> str:
    """Return a hash of a work's settings, of veche's version, and of the source's files and dates.

    Args:
        checkpoint: the source.
        content: what else the result depends on, as JSON values.
    """
    files = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in checkpoint.shards]
    text = json.dumps({**content, "veche": __version__, "files": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def finish_if_done(target: Path, key: str) -> bool:
    """Whether `target` is already what a build of `key` makes; what a crash left goes.

    A build whose journal is still in `target` was killed after its last rename.
    """
    journal = target / JOURNAL_NAME
    if not journal.is_file() or _key_of(journal) != key:
        return False
    _clear(target)
    return True


def _clear(target: Path) -> None:
    (target / _LOCK_NAME).unlink(missing_ok=True)
    (target / JOURNAL_NAME).unlink(missing_ok=True)
    sync_folder(target)


def _require_own_folder(folder: Path) -> None:
    """Refuse a file or a symlink in the place of the folder to work in."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(
            f"{folder} is in the way: it is no folder of veche's",
            hint="rename or remove it, or choose another --out",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other builds out; whatever else has the lock's name is neither followed nor emptied."""
    lock = folder / _LOCK_NAME
    if lock.is_symlink() or (lock.exists() and not lock.is_file()):
        raise _in_the_way(folder, _LOCK_NAME)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(lock, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _in_the_way(folder, _LOCK_NAME)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OutputError(
            f"another build is at work in {folder}", hint="wait for it, or choose another folder"
        ) from error
    finally:
        os.close(descriptor)


def _take_over(folder: Path, key: str, *, resume: bool, discard_stale: bool) -> None:
    """Continue an interrupted build, or clear away what cannot be continued."""
    journal = folder / JOURNAL_NAME
    if not journal.is_file():
        _refuse_strangers(folder)
        remove_partials(folder)
        return
    if not resume:
        raise OutputError(
            f"{folder} holds an interrupted build",
            hint="continue it with --resume, or remove that folder",
        )
    is_same = _key_of(journal) == key
    if not is_same and not discard_stale:
        raise OutputError(
            f"{folder} was begun with another plan or another source",
            hint="remove that folder to begin anew",
        )
    for file in folder.iterdir():
        if is_partial(file) or not is_same:
            _remove(file)


def _key_of(journal: Path) -> str | None:
    """Return what a journal says is being built; None where it is damaged."""
    try:
        key = read_json_object(journal).get("key")
    except VecheError:
        return None
    return key if isinstance(key, str) else None


def _refuse_strangers(folder: Path) -> None:
    """Refuse a folder with files of somebody else's; a crash before the journal leaves none."""
    for file in folder.iterdir():
        if file.name != _LOCK_NAME and not is_partial(file):
            raise _in_the_way(folder, file.name)


def _in_the_way(folder: Path, name: str) -> OutputError:
    return OutputError(
        f"{folder} is in the way: it holds {name!r}, and no build of veche's",
        hint="rename or remove that folder, or choose another --out",
    )


def _remove(file: Path) -> None:
    if file.name == _LOCK_NAME:
        return
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink()
