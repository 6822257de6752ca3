"""Base models by name: configs that ship with the package, and folders that the user names."""

import difflib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from veche.checkpoint.config import read_config
from veche.core.errors import ConfigError

_FOLDER = resources.files("veche.planning") / "bases"


def shipped_bases() -> list[str]:
    """Return the names of the configs in the package."""
    return sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir())


def load_base(name: str) -> dict[str, Any]:
    """Return the config.json of a shipped base, a checkpoint folder, or a config.json file.

    Raises:
        ConfigError: there is no such thing, or it is not a config.
    """
    shipped = shipped_bases()
    if name in shipped:
        config: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        return config
    path = Path(name)
    if not path.exists():
        near = difflib.get_close_matches(name, shipped, n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no base model {name!r}, neither shipped nor as a folder or a config.json",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"shipped: {', '.join(shipped)}",
        )
    return read_config(path)
