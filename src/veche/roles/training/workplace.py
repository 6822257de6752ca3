"""Where a training lies until it is whole: a folder beside the one that it becomes."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veche.core.errors import InputError, OutputError
from veche.core.files import (
    PARTIAL_SUFFIX,
    disk_error,
    is_partial,
    read_json_object,
    remove_partials,
    require_empty,
    sync_folder,
    write_json,
)

RUN_FILE = "run.json"
_CHECKPOINTS = "checkpoints"


class Workplace:
    """OUT.partial: what is trained, checkpoints, and at the end what OUT is to hold.

    NOTE: only a whole training gets the name OUT, by one rename.
    """

    def __init__(self, out: Path) -> None:
        """Name the folder; nothing is made yet."""
        self.out = out
        self.folder = out.with_name(out.name + PARTIAL_SUFFIX)
        self.checkpoints = self.folder / _CHECKPOINTS

    def open(self, run: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or check that the training in it is the one that is to go on.

        Args:
            run: what decides the result.
            resume: whether a training that lies there goes on.

        Raises:
            OutputError: OUT is taken, or an unfinished training lies there and `resume` is False.
            InputError: the training that lies there is another one.
        """
        require_empty(self.out, advice="name a new folder: --out FOLDER")
        if self._is_begun():
            self._require_same(run, resume=resume)
            remove_partials(self.checkpoints)
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.checkpoints) from error
        with nothing_left_of(self):
            write_json(self.folder / RUN_FILE, run)

    def _is_begun(self) -> bool:
        """Whether the folder holds any file; a training that was killed at once left none."""
        files = self.folder.rglob("*")
        return any(file.is_file() and not is_partial(file) for file in files)

    def finish(self) -> None:
        """Give the folder its name; what only a resumed run would need is removed after that."""
        try:
            if self.out.is_dir():
                self.out.rmdir()
            self.folder.replace(self.out)
            sync_folder(self.out.parent)
        except OSError as error:
            raise disk_error(error, self.out) from error
        shutil.rmtree(self.out / _CHECKPOINTS)
        (self.out / RUN_FILE).unlink()

    def _require_same(self, run: Mapping[str, Any], *, resume: bool) -> None:
        if not resume:
            raise OutputError(
                f"an unfinished training lies in {self.folder}",
                hint=f"go on with --resume, or remove it: rm -r {self.folder}",
            )
        before = read_json_object(self.folder / RUN_FILE)
        if differing := [*_differences(before, run)]:
            raise InputError(
                f"{self.folder} holds another training: {'; '.join(differing[:4])}",
                hint=f"resume it as it was begun, or remove it: rm -r {self.folder}",
            )


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{path}{name}.")
        elif old != new:
            yield f"{path}{name} was {_short(old)}, and is {_short(new)}"


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "…"


@contextmanager
def nothing_left_of(workplace: Workplace) -> Iterator[None]:
    """Remove a workplace if the block fails before a checkpoint: nothing could go on there."""
    try:
        yield
    except BaseException:
        if workplace.folder.is_dir() and not any(workplace.checkpoints.glob("*.safetensors")):
            shutil.rmtree(workplace.folder, ignore_errors=True)
        raise
