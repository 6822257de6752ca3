"""Keep each finished setting, so that the same command goes on where it was interrupted."""

import hashlib
from pathlib import Path
from typing import Any

from veche.checkpoint.reader import shards_of
from veche.core.errors import CheckpointError
from veche.core.files import read_json_object, write_json
from veche.core.json_text import json_text
from veche.core.paths import home
from veche.experts.dial.figures import SettingFigures, figures_of

_SCHEMA = 1
_KEY_LETTERS = 16


class DialStore:
    """One model's settings on one text: VECHE_HOME/dials/MODEL-KEY/NAME-VALUE.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, setting: str) -> SettingFigures | None:
        """Return a setting's figures; None where it was not measured.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self._path(setting)
        if not path.exists():
            return None
        try:
            return figures_of(read_json_object(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is not what veche dial keeps: {error}", hint="remove it, and run again"
            ) from error

    def save(self, setting: str, figures: SettingFigures) -> None:
        """Keep a setting's figures, atomically."""
        write_json(self._path(setting), figures.as_dict())

    def _path(self, setting: str) -> Path:
        return self.folder / f"{setting}.json"


def store_for(model: Path, measured: dict[str, Any]) -> DialStore:
    """Return where settings of this model on this text are kept.

    The key holds the text's tokens and how they are measured, config.json, and each weight file's
    name, size and time of change: weights are not read for it.

    Args:
        model: the checkpoint.
        measured: all else that figures depend on, as JSON values.
    """
    config = hashlib.sha256((model / "config.json").read_bytes()).hexdigest()
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in shards_of(model)]
    text = json_text({"schema": _SCHEMA, "config": config, "files": files, **measured})
    key = hashlib.sha256(text.encode()).hexdigest()[:_KEY_LETTERS]
    return DialStore(home() / "dials" / f"{model.resolve().name[:64]}-{key}")
