"""Trained and found things, each in a folder that is called by the hash of what it holds."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from veche.checkpoint.header import read_header
from veche.checkpoint.identity import hash_of
from veche.core.errors import CheckpointError, RoleError, VecheError
from veche.core.files import (
    atomic_writer,
    disk_error,
    is_partial_name,
    open_regular,
    partial_of,
    read_json_object,
    sync_folder,
)
from veche.roles.role import Artefact, ArtefactKind
from veche.roles.role_file import is_content_hash

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
STEERING_FILE = "steering.safetensors"
_KEPT = (".json", ".safetensors")
_UNUSED_S = 24 * 3600
"""How long something that was kept may wait for the role that it was kept for."""


class Objects:
    """A folder of objects.

    NOTE: an object never changes: its files are copied aside, checked and hashed there, and the
    whole folder then gets its name. Whoever writes or removes holds the registry's lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, source: Path, kind: ArtefactKind) -> str:
        """Copy in what an artefact consists of; return its content hash.

        Args:
            source: a PEFT folder, a steering's file, or a probe's folder.
            kind: what it is.

        Raises:
            CheckpointError: it is damaged, or no such thing; pickles are refused.
            UnsupportedError: it is an adapter that no branch can have for itself.
            DiskError: the disk refuses.
        """
        files = _files_of(source, kind)
        partial = partial_of(self._folder / kind)
        try:
            _make(partial)
            for name, file in files.items():
                _copy(file, partial / name)
            with _named_as(source, partial):
                _require_sound(partial, kind)
            content_hash = hash_of(sorted(partial.iterdir()))
            self._put(partial, content_hash)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return content_hash

    def folder(self, artefact: Artefact) -> Path:
        """Return where an artefact lies; its content is read and compared with its hash.

        Raises:
            RoleError: it is not there, or damaged.
        """
        folder = self._place(artefact.content_hash)
        if not self.has(artefact.content_hash):
            raise RoleError(
                f"the {artefact.kind} {artefact.content_hash[:12]}… is not in the registry "
                f"{self._folder}",
                hint="import the role again, with its files: veche role import FOLDER",
            )
        if not _is_intact(folder, artefact.content_hash):
            raise RoleError(
                f"the {artefact.kind} in {folder} is damaged: its content is not what it is "
                "called by",
                hint="import the role again, with its files: veche role import FOLDER",
            )
        return folder

    def has(self, content_hash: str) -> bool:
        """Whether there is an object of that hash, intact or not."""
        return self._place(content_hash).is_dir()

    def num_bytes(self, content_hash: str) -> int:
        """Return how large an object is; 0 where it is not there."""
        folder = self._place(content_hash)
        return sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0

    def sweep(self, used: Iterable[str], gone: Iterable[str]) -> list[str]:
        """Remove what nothing uses; return its hashes.

        Args:
            used: hashes that some version of a role names.
            gone: hashes that were used until now: these need not wait.
        """
        if not self._folder.is_dir():
            return []
        used, gone = set(used), set(gone)
        removed = []
        for folder in self._folder.iterdir():
            if is_partial_name(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
            elif is_content_hash(folder.name) and folder.name not in used:
                is_forgotten = time.time() - folder.stat().st_mtime > _UNUSED_S
                if is_forgotten or folder.name in gone:
                    shutil.rmtree(folder, ignore_errors=True)
                    removed.append(folder.name)
        return sorted(removed)

    def _place(self, content_hash: str) -> Path:
        if not is_content_hash(content_hash):
            raise RoleError(f"{content_hash[:80]!r} is no content hash")
        return self._folder / content_hash

    def _put(self, partial: Path, content_hash: str) -> None:
        target = self._place(content_hash)
        if target.is_dir() and _is_intact(target, content_hash):
            return
        try:
            if target.is_dir():
                shutil.rmtree(target)
            partial.replace(target)
            sync_folder(self._folder)
        except OSError as error:
            raise disk_error(error, target) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise disk_error(error, folder) from error


def _is_intact(folder: Path, content_hash: str) -> bool:
    files = sorted(folder.iterdir())
    try:
        return all(file.is_file() for file in files) and hash_of(files) == content_hash
    except OSError:
        return False


def _files_of(source: Path, kind: ArtefactKind) -> dict[str, Path]:
    """Return the files of an artefact, by the names under which they are kept."""
    if kind == "steering":
        file = source / STEERING_FILE if source.is_dir() else source
        return {STEERING_FILE: file}
    if not source.is_dir():
        raise CheckpointError(f"{source} is not a folder, as {_ARTICLE[kind]} is")
    if kind == "adapter":
        _require_no_pickle(source)
        return {name: source / name for name in ADAPTER_FILES}
    files = {file.name: file for file in sorted(source.iterdir())}
    strange = [name for name in files if not name.endswith(_KEPT)]
    if strange or not files:
        raise CheckpointError(
            f"{source} holds {strange[0]!r}" if strange else f"{source} is empty",
            hint="a probe is .safetensors and .json files, nothing else: no pickles",
        )
    return files


_ARTICLE = {"adapter": "an adapter", "probe": "a probe", "steering": "a steering"}


def _require_no_pickle(source: Path) -> None:
    config, weights = (source / name for name in ADAPTER_FILES)
    if not config.is_file():
        raise CheckpointError(
            f"{source} is no PEFT adapter: {config.name} is missing",
            hint="name the folder that PEFT's save_pretrained wrote",
        )
    if not weights.is_file():
        raise CheckpointError(
            f"{source} has no {weights.name}; pickled adapters are refused",
            hint="save it with safe_serialization=True",
        )


def _copy(source: Path, target: Path) -> None:
    try:
        with open_regular(source) as file, atomic_writer(target) as copy:
            shutil.copyfileobj(file, copy)
    except OSError as error:
        raise CheckpointError(
            f"{source} cannot be read: {error.strerror}", hint="check the path"
        ) from error


@contextmanager
def _named_as(source: Path, copy: Path) -> Iterator[None]:
    """Let errors name what was given: the copy that was looked at is removed."""
    try:
        yield
    except VecheError as error:
        whole = source if source.is_dir() else source.parent
        error.message = error.message.replace(str(copy), str(whole))
        raise


def _require_sound(folder: Path, kind: ArtefactKind) -> None:
    """Refuse copies that are not what they are called."""
    for file in sorted(folder.iterdir()):
        if file.suffix == ".json":
            read_json_object(file)
        else:
            read_header(file)
    if kind == "adapter":
        from veche.engines.embedded.adapter_files import read_adapter

        read_adapter(folder)
    elif kind == "steering":
        from veche.experts.steering.file import load_steering

        load_steering(folder / STEERING_FILE)
