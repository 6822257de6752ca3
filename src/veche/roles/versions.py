"""The versions of one role, in a folder of its own: a YAML file each, and an index."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, ValidationError

from veche.core.errors import CheckpointError, RoleError
from veche.core.files import (
    open_regular,
    read_json_object,
    remove_partials,
    sync_folder,
    write_json,
    write_text,
)
from veche.planning.yaml_text import MAX_BYTES
from veche.roles.role import Role
from veche.roles.role_file import parse_role, role_text, version_hash

INDEX = "versions.json"
SHIPPED = 0
"""The number of the version that a package brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleVersion:
    """One version of a role.

    Attributes:
        number: from 1; 0 is the one that a package brings.
        content_hash: `version_hash` of it.
        created: when, ISO 8601 in UTC; empty for what a package brings.
        note: what was said of it when it was saved.
        is_in_use: whether it is what the role's name means now.
    """

    number: int
    content_hash: str
    created: str
    note: str
    is_in_use: bool


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    number: PositiveInt
    content_hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: str
    note: str


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["veche-role-1"] = "veche-role-1"
    in_use: int = Field(ge=SHIPPED)
    last: PositiveInt
    versions: list[_Entry]


class Versions:
    """What is kept of one role.

    NOTE: the index decides: a version's YAML is written before it is named there, and removed
    after it is not. A number is never given twice. Whoever writes holds the registry's lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> tuple[RoleVersion, ...]:
        """Return every version, first to last; none where nothing is kept.

        Raises:
            RoleError: the index is damaged.
        """
        index = self._index()
        if index is None:
            return ()
        return tuple(
            RoleVersion(**entry.model_dump(), is_in_use=entry.number == index.in_use)
            for entry in index.versions
        )

    def role(self, version: RoleVersion) -> Role:
        """Read a version.

        Raises:
            RoleError: its file is missing or damaged.
        """
        path = self._file(version.number)
        try:
            with open_regular(path) as file:
                raw = file.read(MAX_BYTES * 4 + 1)
        except OSError as error:
            raise self._damaged(version.number, error.strerror or "it cannot be read") from error
        if hashlib.sha256(raw).hexdigest() != version.content_hash:
            raise self._damaged(version.number, "it is not what was saved")
        return parse_role(raw.decode("utf-8"), where=str(path))

    def add(self, role: Role, *, note: str) -> RoleVersion:
        """Write a version, and put it in use; one of the same content is only put in use."""
        text, content_hash = role_text(role), version_hash(role)
        index = self._index()
        entries = [] if index is None else index.versions
        for entry in entries:
            if entry.content_hash == content_hash and index is not None:
                write_text(self._file(entry.number), text)
                self._write(index.model_copy(update={"in_use": entry.number}))
                return RoleVersion(**entry.model_dump(), is_in_use=True)
        number = 1 if index is None else index.last + 1
        created = datetime.now(UTC).isoformat(timespec="seconds")
        new = _Entry(number=number, content_hash=content_hash, created=created, note=note)
        write_text(self._file(number), text)
        self._write(_Index(in_use=number, last=number, versions=[*entries, new]))
        return RoleVersion(**new.model_dump(), is_in_use=True)

    def use(self, number: int) -> None:
        """Put a version in use; 0 is the shipped one."""
        if (index := self._index()) is not None:
            self._write(index.model_copy(update={"in_use": number}))

    def remove(self, numbers: set[int]) -> None:
        """Remove versions; the newest that is left is then in use, if the one in use is gone."""
        index = self._index()
        if index is None:
            return
        left = [entry for entry in index.versions if entry.number not in numbers]
        in_use = index.in_use
        if in_use in numbers:
            in_use = left[-1].number if left else SHIPPED
        if left:
            self._write(index.model_copy(update={"versions": left, "in_use": in_use}))
        else:
            (self._folder / INDEX).unlink()
            sync_folder(self._folder)
        named = {self._file(entry.number) for entry in left}
        remove_partials(self._folder)
        for file in self._folder.glob("*.yaml"):
            if file not in named:
                file.unlink()
        if not left:
            with suppress(OSError):  # somebody has put something of theirs there
                self._folder.rmdir()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.yaml"

    def _index(self) -> _Index | None:
        path = self._folder / INDEX
        if not path.exists():
            return None
        try:
            return _Index.model_validate(read_json_object(path))
        except (CheckpointError, ValidationError) as error:
            reason = error.message if isinstance(error, CheckpointError) else _reason(error)
            raise RoleError(
                f"{path} is damaged: {reason}",
                hint=f"set the folder aside: mv {self._folder} {self._folder}.damaged",
            ) from error

    def _write(self, index: _Index) -> None:
        write_json(self._folder / INDEX, index.model_dump())

    def _damaged(self, number: int, reason: str) -> RoleError:
        name = self._folder.name
        return RoleError(
            f"version {number} of role {name!r} is damaged ({self._file(number)}): {reason}",
            hint=f"remove it: veche role remove {name} --version {number}",
        )


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
