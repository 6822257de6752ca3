"""A folder that fsspec reaches: what it holds, and its files one by one, down and up."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from veche.core.errors import CheckpointError, InputError, MissingExtraError, TransferError
from veche.core.extras import require_extra
from veche.core.files import atomic_writer
from veche.core.progress import Advance

_Result = TypeVar("_Result")
_PIECE_BYTES = 8 << 20
_MAX_NAME_BYTES = 200
_S3_PARTS = {"chunksize": 16 << 20, "max_concurrency": 4}
"""Of an upload: s3fs' own would take half a gigabyte of memory. S3 takes 10,000 parts."""
_PATIENCE_S = 0.2
_NUM_ATTEMPTS = 4
_FIRST_PAUSE_S = 1.0
_VERSIONS = ("ETag", "etag", "version_id", "generation", "mtime", "LastModified", "created")
"""What file systems call the mark that changes when a file does; the strongest first."""
_NO_CREDENTIALS = (("botocore.exceptions", "NoCredentialsError"),)
_THIRD_PARTY = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("requests.exceptions", "RequestException"),
)
"""What file systems let through besides OSError; loaded if they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a remote folder.

    Attributes:
        name: in the folder.
        num_bytes: its length.
        version: its ETag or date; another one means other content.
    """

    name: str
    num_bytes: int
    version: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class RemoteFolder:
    """A folder under a URL.

    Credentials and endpoints are what the environment says (for S3: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ~/.aws; for any: FSSPEC_<PROTOCOL>_<OPTION>).
    """

    def __init__(self, url: str) -> None:
        """Look the URL's file system up; nothing is asked of it yet.

        Raises:
            InputError: there is none for this URL.
            MissingExtraError: its package is not installed.
        """
        require_extra("remote")
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        try:
            self._system, path = url_to_fs(self.url)
        except ImportError as error:
            if url.startswith("s3"):
                raise MissingExtraError("s3fs", "remote") from error
            raise InputError(f"{url} cannot be opened: {error}") from error
        except ValueError as error:
            raise InputError(
                f"{url} cannot be opened: {error}",
                hint="s3://bucket/folder, or any URL that an installed fsspec package knows",
            ) from error
        self._root = str(path).rstrip("/")

    def files(self) -> dict[str, RemoteFile]:
        """List the files by name, without those of folders inside; empty where there is none.

        Raises:
            CheckpointError: a name leads out of the folder.
            InputError: it is refused.
            TransferError: no answer.
        """
        return _persistently(self._list)

    def fetch(self, file: RemoteFile, path: Path, advance: Advance) -> None:
        """Bring a file here, atomically.

        Raises:
            DiskError: the disk is full or refuses.
            InputError: it is refused, or gone.
            TransferError: no answer, several times, or not all of the file.
        """
        _persistently(lambda: self._fetch(file, path, advance))

    def store(self, path: Path, advance: Advance) -> RemoteFile:
        """Bring a file there under its own name, and return what is there then.

        Raises:
            InputError: it is refused.
            TransferError: no answer, several times, or another length is there.
        """
        return _persistently(lambda: self._store(path, advance))

    def make(self) -> None:
        """Make the folder, where the file system has such; never a bucket.

        Raises:
            InputError: it is refused, or what it is to be in does not exist.
            TransferError: no answer.
        """

        def once() -> None:
            with self._asked("made"), suppress(FileExistsError):
                self._system.mkdir(self._root, create_parents=False)

        _persistently(once)

    def _list(self) -> dict[str, RemoteFile]:
        self._system.invalidate_cache()
        with self._asked("listed"):
            try:
                entries = self._system.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        files = [
            _file(entry)
            for entry in entries
            if entry["type"] == "file" and str(entry["name"]).rstrip("/") != self._root
        ]
        for file in files:
            _require_plain(file.name, self.url)
        return {file.name: file for file in files}

    def _fetch(self, file: RemoteFile, path: Path, advance: Advance) -> None:
        left = file.num_bytes
        try:
            with self._asked("read"):
                remote = self._system.open(self._at(file.name), "rb")
            with remote, atomic_writer(path) as local:
                while chunk := self._read(remote, left + 1):
                    local.write(chunk)
                    left -= len(chunk)
                    advance(len(chunk))
                if left:
                    raise TransferError(
                        f"{self.url}/{file.name} has {file.num_bytes:,} bytes by the listing, and "
                        f"{file.num_bytes - left:,} came",
                        hint="run the same command again, with --resume",
                    )
        except TransferError:
            advance(left - file.num_bytes)
            raise

    def _read(self, remote: Any, num_bytes: int) -> bytes:
        with self._asked("read"):
            chunk: bytes = remote.read(min(_PIECE_BYTES, num_bytes))
        return chunk

    def _store(self, path: Path, advance: Advance) -> RemoteFile:
        """Send a file from a thread of its own, so that Ctrl-C ends it at its next piece."""
        sent, num_bytes = _reporter(), path.stat().st_size
        try:
            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(self._send, path, sent)
                try:
                    while not wait([sending], timeout=_PATIENCE_S).done:
                        advance(sent.news())
                except BaseException:
                    sent.is_stopped = True
                    raise
            stored = sending.result()
            if stored.num_bytes != num_bytes:
                raise TransferError(
                    f"{self.url}/{path.name} has {stored.num_bytes:,} bytes there, and "
                    f"{num_bytes:,} were sent",
                    hint="run the same command again, with --resume",
                )
        except TransferError:
            advance(-sent.told)
            raise
        advance(num_bytes - sent.told)
        return stored

    def _send(self, path: Path, reporter: Any) -> RemoteFile:
        options = _S3_PARTS if "s3" in self._system.protocol else {}
        with self._asked("written"):
            self._system.put_file(str(path), self._at(path.name), callback=reporter, **options)
            self._system.invalidate_cache()
            return _file(self._system.info(self._at(path.name)))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _asked(self, action: str) -> Iterator[None]:
        """Turn what file systems raise into two errors: to be repaired, or to be tried again."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise InputError(
                f"{self.url} cannot be {action}: {_first_line(error)}",
                hint="check the URL; a bucket must exist, veche makes none",
            ) from error
        except _loaded(PermissionError, _NO_CREDENTIALS) as error:
            raise InputError(
                f"{self.url} cannot be {action}: {_first_line(error)}",
                hint="credentials come from the environment, e.g. AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            ) from error
        except _loaded(OSError, _THIRD_PARTY) as error:
            raise TransferError(
                f"{self.url} could not be {action}: {_first_line(error)}",
                hint="what was done is kept: run the same command again, with --resume",
            ) from error


def _persistently(once: Callable[[], _Result]) -> _Result:
    """Try several times, with longer and longer pauses, as long as there is no answer."""
    pause = _FIRST_PAUSE_S
    for _ in range(_NUM_ATTEMPTS - 1):
        try:
            return once()
        except TransferError:
            time.sleep(pause)
            pause *= 2
    return once()


class _StoppedError(Exception):
    """The user interrupted."""


def _reporter() -> Any:
    """Return fsspec's kind of progress; it is told by other threads, and asked by this one."""
    from fsspec.callbacks import Callback

    class Reporter(Callback):  # type: ignore[misc]
        told, is_stopped = 0, False

        def call(self, *_: Any, **__: Any) -> None:
            if self.is_stopped:
                raise _StoppedError

        def news(self) -> int:
            new = int(self.value) - self.told
            self.told += new
            return new

    return Reporter()


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    version = next((str(entry[key]) for key in _VERSIONS if entry.get(key) is not None), "")
    name = str(entry["name"]).rpartition("/")[2]
    return RemoteFile(name=name, num_bytes=int(entry["size"] or 0), version=version)


def _require_plain(name: str, url: str) -> None:
    """Refuse a name that would lead out of a folder here, or that no file here can have.

    Raises:
        CheckpointError: names it.
    """
    is_plain = PurePosixPath(name).name == name and name != ".." and "\\" not in name
    if not is_plain or not name.isprintable() or len(name.encode()) > _MAX_NAME_BYTES:
        raise CheckpointError(
            f"{url} lists a file named {name[:80]!r}, which cannot be a file of a model",
            hint="this folder is malformed or hostile: do not use it",
        )


def _loaded(
    first: type[Exception], others: tuple[tuple[str, str], ...]
) -> tuple[type[Exception], ...]:
    """Return exception classes, of the others those whose modules are in use."""
    modules = ((sys.modules.get(module), name) for module, name in others)
    return first, *(getattr(module, name) for module, name in modules if module is not None)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
