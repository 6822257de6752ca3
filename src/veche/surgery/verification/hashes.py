"""Are the files of a grown folder, and of its source, those that the build left and read?"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veche.core.errors import CheckpointError
from veche.core.files import read_json_object, sha256_of
from veche.core.progress import Progress, Silent
from veche.surgery.names import CARD_NAME, HASHES_NAME

SCHEMA = 1
_UNLISTED = (HASHES_NAME, CARD_NAME)
"""The list itself, and the model card, which people edit."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderHashes:
    """The files of a folder against their hashes.

    Attributes:
        folder: where they lie.
        unchanged: names of files that are as they were.
        changed: of files with other bytes.
        missing: of files that are not there.
        extra: of files that nobody listed.
    """

    folder: str
    unchanged: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all is as it was. An extra file counts only where engines may load it."""
        has_extra_weights = any(name.endswith(".safetensors") for name in self.extra)
        return not (self.changed or self.missing or has_extra_weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashReport:
    """What the hashes say of a grown folder, and of its source if that was given."""

    target: FolderHashes
    source: FolderHashes | None

    @property
    def passed(self) -> bool:
        """Whether both are as they were."""
        return self.target.passed and (self.source is None or self.source.passed)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        content = {"passed": self.passed, **asdict(self)}
        content["target"]["passed"] = self.target.passed
        if self.source is not None:
            content["source"]["passed"] = self.source.passed
        return content


def verify_hashes(
    target: Path, source: Path | None = None, *, progress: Progress | None = None
) -> HashReport:
    """Compare the files of a grown folder, and of its source, with the hashes that a build left.

    Args:
        target: the grown folder.
        source: the folder that was grown; None to look at the target alone.
        progress: where to report.

    Raises:
        CheckpointError: the target has no usable veche_hashes.json, or a file cannot be read.
    """
    progress = progress or Silent()
    content = _read(target / HASHES_NAME)
    listed = content["files"]
    extra = tuple(name for name in _files_of(target) if name not in listed)
    return HashReport(
        target=_compared(target, listed, extra, progress),
        source=None if source is None else _compared(source, content["source"], (), progress),
    )


def _compared(
    folder: Path, listed: Mapping[str, str], extra: tuple[str, ...], progress: Progress
) -> FolderHashes:
    present = [name for name in listed if (folder / name).is_file()]
    found = _hashed(folder, present, progress)
    return FolderHashes(
        folder=str(folder),
        unchanged=tuple(name for name in present if found[name] == listed[name]),
        changed=tuple(name for name in present if found[name] != listed[name]),
        missing=tuple(name for name in listed if name not in found),
        extra=extra,
    )


def _hashed(folder: Path, names: Collection[str], progress: Progress) -> dict[str, str]:
    try:
        total = sum((folder / name).stat().st_size for name in names)
        with progress.task(f"hash {folder.name}", total) as advance:
            return {name: sha256_of(folder / name, advance=advance) for name in names}
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder} cannot be read: {error.strerror or error}"
        ) from error


def _files_of(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", hint="give a folder of veche build")
    names = [file.name for file in folder.iterdir() if not file.is_dir()]
    return sorted(name for name in names if name not in _UNLISTED and not name.startswith("."))


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Read a list of hashes, believing no name that leads out of its folder."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist, so there is nothing to compare with",
            hint="veche build leaves it; without it, compare the functions: veche verify SOURCE "
            "TARGET",
        )
    content = read_json_object(path)
    if content.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} is of schema {content.get('schema')!r}, and this version of veche reads "
            f"{SCHEMA}",
            hint="use the version of veche that built the folder",
        )
    for key in ("source", "files"):
        entries = content.get(key)
        if not isinstance(entries, dict) or not all(
            _is_entry(name, digest) for name, digest in entries.items()
        ):
            raise CheckpointError(
                f"{path}: {key!r} is not a list of files and their SHA-256",
                hint="the file is damaged or hostile: get the folder again",
            )
    return content


def _is_entry(name: str, digest: Any) -> bool:
    is_inside = name not in ("", ".", "..") and not set(name) & set("/\\\x00")
    is_hash = isinstance(digest, str) and _SHA256.fullmatch(digest) is not None
    return is_inside and is_hash
