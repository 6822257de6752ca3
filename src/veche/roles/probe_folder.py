"""A folder of what a role measures with: NAME.json says what it is, NAME.safetensors holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from veche.core.errors import CheckpointError
from veche.core.files import read_json_object, write_together
from veche.core.json_text import json_text
from veche.roles.array_file import array_bytes, damaged, read_arrays

_MAX_BYTES = 1 << 30
NoteT = TypeVar("NoteT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFolder(Generic[NoteT]):
    """One kind of such folders.

    Attributes:
        name: of its two files.
        format: that the arrays say they are of.
        note: model of the JSON.
        hint: what to do where a folder is damaged.
    """

    name: str
    format: str
    note: type[NoteT]
    hint: str

    def note_path(self, folder: Path) -> Path:
        """Return where a folder's note is."""
        return folder / f"{self.name}.json"

    def arrays_path(self, folder: Path) -> Path:
        """Return where a folder's arrays are."""
        return folder / f"{self.name}.safetensors"

    def save(self, folder: Path, note: NoteT, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write both files, together.

        Raises:
            MissingExtraError: safetensors is not installed.
            DiskError: the disk refuses it.
        """
        raw = array_bytes(arrays, format=self.format)
        text = json_text(note.model_dump()) + "\n"
        write_together({self.arrays_path(folder): raw, self.note_path(folder): text})

    def load(self, folder: Path) -> tuple[NoteT, dict[str, NDArray[Any]]]:
        """Return what `save` wrote.

        Raises:
            CheckpointError: a file is missing, damaged, or of another kind.
            MissingExtraError: safetensors is not installed.
        """
        path = self.note_path(folder)
        try:
            note = self.note.model_validate(read_json_object(path))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise damaged(path, f"{where}: {first['msg']}", self.hint) from error
        path = self.arrays_path(folder)
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(
                f"{path} is longer than {_MAX_BYTES >> 30} GiB: it is no {self.format}",
                hint=self.hint,
            )
        return note, read_arrays(path, format=self.format, hint=self.hint)

    def damaged(self, folder: Path, reason: str) -> CheckpointError:
        """Return the error of arrays that don't fit."""
        return damaged(self.arrays_path(folder), reason, self.hint)
