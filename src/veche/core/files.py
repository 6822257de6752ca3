"""Write files so that a crash leaves the old one or the new one, never half of one."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from veche.core.errors import CheckpointError, DiskError, InputError, OutputError

PARTIAL_SUFFIX = ".partial"
_CHUNK_BYTES = 8 << 20


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` when the block ends without an error.

    NOTE: temp → fsync → rename → fsync of the folder, so `path` never names half a file.

    Raises:
        DiskError: the disk is full or refuses the write; the partial file is removed.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
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


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        CheckpointError: the file is missing, is not UTF-8 JSON, or holds something else.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} cannot be read: it is not a file", hint="check the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text)
        _require_encodable(text, value)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", hint="check the path") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not valid JSON: {error}",
            hint="download or export the file again",
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def _require_encodable(text: str, value: Any) -> None:
    """Refuse halves of surrogate pairs, which JSON can write and no text can hold.

    Raises:
        ValueError: there is one.
    """
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        InputError: it is missing, unreadable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def require_empty(folder: Path, *, advice: str) -> None:
    """Refuse a target folder that already holds something.

    Raises:
        OutputError: `folder` is a file, or a folder with anything in it.
    """
    if folder.is_file():
        raise OutputError(f"{folder} is a file, not a folder", hint="choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty, and veche overwrites nothing", hint=advice)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def disk_error(error: OSError, path: Path) -> DiskError:
    """Say in one sentence what the operating system refused."""
    if error.errno == errno.ENOSPC:
        return DiskError(
            f"the disk is full: {path} could not be written",
            hint="free some space, then run the same command again",
        )
    return DiskError(f"{path} could not be written: {error.strerror or error}")


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
