"""Where veche keeps what it makes."""

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return veche's own folder: $VECHE_HOME, or the platform's user data folder."""
    chosen = os.environ.get("VECHE_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("veche"))
