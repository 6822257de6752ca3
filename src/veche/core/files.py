"""Write files so that a crash leaves the old one or the new one, never half of one."""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

from veche.core.errors import CheckpointError, DiskError, InputError, OutputError
from veche.core.json_text import json_text, parse_json
from veche.core.units import format_bytes

PARTIAL_SUFFIX = ".partial"
MAX_JSON_BYTES = 32 << 20
"""The longest JSON file that is read: the index of 200,000 tensors has about 20 MB."""
_CHUNK_BYTES = 8 << 20
_MAX_NAME_BYTES = 255
_PARTIAL = re.compile(rf"\..*\.[0-9a-f]{{16}}{re.escape(PARTIAL_SUFFIX)}", re.DOTALL)
_NAME_LETTERS = 48
"""Of the final name in a temporary one: file names have at most 255 bytes."""


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` when the block ends without an error.

    NOTE: temp → fsync → rename → fsync of the folder, so `path` never names half a file. The
    temporary name, `.NAME.<random>.partial`, is nobody else's: it is made anew (O_EXCL), and
    nothing that lies there, be it a file or a symlink, is written to. What a killed process
    leaves of it is harmless; see `remove_partials`.

    Raises:
        DiskError: the disk is full or refuses the write; the partial file is removed.
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(partial)
        raise disk_error(error, path) from error
    except BaseException:
        _remove(partial)
        raise


def partial_of(path: Path) -> Path:
    """Return a name beside `path` for it to have until it is whole: hidden, and nobody else's."""
    return path.with_name(f".{path.name[:_NAME_LETTERS]}.{token_hex(8)}{PARTIAL_SUFFIX}")


def is_partial(file: Path) -> bool:
    """Whether a file is one that `partial_of` named; a user's x.partial is not."""
    return is_partial_name(file.name) and (file.is_symlink() or file.is_file())


def is_partial_name(name: str) -> bool:
    """Whether a name is as `partial_of` gives."""
    return _PARTIAL.fullmatch(name) is not None


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left in `folder`; only for one who alone may write there."""
    for file in folder.iterdir():
        if is_partial(file):
            file.unlink()


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keep other processes out of the block that reads, changes and writes `path`.

    The lock is on the file `.NAME.lock` beside it, which stays: removing it would let two in.

    Raises:
        DiskError: the lock file cannot be made.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise disk_error(error, lock) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, but no folder, pipe or device: these would block or never end.

    Raises:
        OSError: it is one of them, or cannot be opened.
    """
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files, all or (on a full disk, say) none; the first gets its name last.

    Raises:
        DiskError: the disk is full or refuses.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            file = stack.enter_context(atomic_writer(path))
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()  # what the disk refuses, it refuses before any file gets its name


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json_text(value))


def read_json_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: the file.
        max_bytes: a longer file is refused before it is read.

    Raises:
        CheckpointError: the file is missing, too long, is not UTF-8 JSON, or holds something else.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", hint="check the path") from error
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}", hint="check the path"
        ) from error
    if len(raw) > max_bytes:
        raise CheckpointError(
            f"{path} is longer than {max_bytes >> 20} MiB, which no such file is",
            hint="download or export the file again",
        )
    try:
        value = parse_json(raw)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON: {error}",
            hint="download or export the file again",
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a JSON {type(value).__name__}, not an object",
            hint="download or export the file again",
        )
    return value


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        InputError: it is missing, unreadable, a device, or not UTF-8.
    """
    try:
        if path.is_char_device():
            raise InputError(f"{path} is a device, which may never end", hint="name a file")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def require_apart(out: Path, *inputs: Path) -> None:
    """Refuse to write over what is read, or into a folder that is read.

    Raises:
        OutputError: names the input.
    """
    # realpath, unlike Path.resolve before Python 3.13, bears a loop of symlinks.
    target = Path(os.path.realpath(out))
    for given in inputs:
        source = Path(os.path.realpath(given))
        if target == source or (source.is_dir() and source in target.parents):
            raise OutputError(
                f"{out} would be written over {given}, which is only read",
                hint="name another place: --out",
            )


def require_empty(folder: Path, *, advice: str) -> None:
    """Refuse a target folder that already holds something.

    Raises:
        OutputError: `folder` is something else than a folder, cannot be one, or holds anything.
    """
    _require_possible(folder)
    if folder.is_symlink():
        raise OutputError(
            f"{folder} is a symlink, and the finished folder takes the name itself",
            hint=f"name the place that it leads to: {os.path.realpath(folder)}",
        )
    if folder.is_dir() and folder.samefile(Path.cwd()):
        raise OutputError(
            f"{folder} is the working folder, which cannot be replaced", hint="name a new folder"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty, and veche overwrites nothing", hint=advice)


def _require_possible(folder: Path) -> None:
    """Refuse a path that is no folder's, or leads through a file, or is longer than names are."""
    try:
        for place in (folder, *folder.parents):
            if place.exists() and not place.is_dir():
                raise OutputError(f"{place} is a file, not a folder", hint="choose another folder")
            longest = len(os.fsencode(place.name + PARTIAL_SUFFIX))
            if longest > _MAX_NAME_BYTES:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    except OSError as error:
        raise OutputError(
            f"{str(folder)[:200]!r} cannot be a folder: {error.strerror}",
            hint=f"a name has at most {_MAX_NAME_BYTES - len(PARTIAL_SUFFIX)} bytes",
        ) from error


def require_space(folder: Path, num_bytes: int, *, advice: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DiskError: fewer than `num_bytes` are free where `folder` is.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskError(
            f"the disk is full: {folder} needs {format_bytes(num_bytes)}, "
            f"{format_bytes(free)} are free",
            hint=advice,
        )


def sha256_of(path: Path, *, advance: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file's bytes, as lower-case hex.

    Args:
        path: the file.
        advance: called with the number of bytes, piece by piece.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


_HINTS = {
    errno.EFBIG: "files may not be so large here: see ulimit -f, or choose another disk",
    errno.EMFILE: "this shell may open too few files: ulimit -n 1024",
    errno.EROFS: "choose a place on a disk that can be written to",
    errno.EACCES: "choose a place where you may write",
    errno.EPERM: "choose a place where you may write",
}


def disk_error(error: OSError, path: Path) -> DiskError:
    """Say in one sentence what the operating system refused."""
    if error.errno == errno.ENOSPC:
        return DiskError(
            f"the disk is full: {path} could not be written",
            hint="free some space, then run the same command again",
        )
    return DiskError(
        f"{path} could not be written: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, ""),
    )


def _remove(partial: Path) -> None:
    with suppress(OSError):  # whatever stopped the write may stop this too
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk: a rename is not safe before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
