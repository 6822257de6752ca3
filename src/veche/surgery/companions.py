"""The files that come along with a model: tokenizer, chat template, licence and the like."""

import os
import shutil
from pathlib import Path

from veche.checkpoint.reader import INDEX_NAME
from veche.core.errors import CheckpointError
from veche.core.files import is_partial
from veche.surgery.names import (
    GROWTH_NAME,
    HASHES_NAME,
    HEAL_NAME,
    PLAN_NAME,
    SOURCE_CARD_NAME,
    WEIGHT_SUFFIXES,
)
from veche.surgery.workshop import WORK_NAMES

_OWN = ("config.json", PLAN_NAME, INDEX_NAME, GROWTH_NAME, HASHES_NAME, HEAL_NAME, SOURCE_CARD_NAME)
_COPY_BYTES = 8 << 20


def companions_of(source: Path) -> list[Path]:
    """Return the files of a checkpoint folder that are neither weights nor veche's own.

    Raises:
        CheckpointError: a name is not UTF-8, or a symlink leads out of the folder and of the hub's
            cache: a folder that came from elsewhere must not carry the owner's other files along.
    """
    files = [
        file
        for file in sorted(source.iterdir())
        if file.is_file()
        and not file.name.endswith(WEIGHT_SUFFIXES)
        and not is_partial(file)
        and file.name not in (*_OWN, *WORK_NAMES)
    ]
    for file in files:
        _require_own(file, source)
    return files


def copy_companion(file: Path, target: Path) -> None:
    """Copy one of them.

    Raises:
        CheckpointError: it cannot be read.
        OSError: the disk is full or refuses.
    """
    try:
        source = file.open("rb")
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read: {error.strerror}",
            hint="it comes along with the model: make it readable, or move it out of the folder",
        ) from error
    with source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _COPY_BYTES)


def _require_own(file: Path, source: Path) -> None:
    if not file.name.isascii() and b"\\udc" in file.name.encode("ascii", "backslashreplace"):
        raise CheckpointError(
            f"{source} holds a file whose name is not UTF-8: {os.fsencode(file.name)!r}",
            hint="rename it, or move it out of the folder",
        )
    folder = source.resolve()
    # The hub's cache: models--ORG--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH
    allowed = (folder, folder.parent / "blobs", folder.parent.parent / "blobs")
    if file.is_symlink() and not any(file.resolve().is_relative_to(root) for root in allowed):
        raise CheckpointError(
            f"{file} is a symlink that leads out of its folder, to {file.resolve()}",
            hint="it would come along with the model: put a copy in its place, or remove it",
        )
