"""The text that carving looks at, apart from the text on which its result is judged.

Both come from Python itself, which every installation carries: nothing is fetched. Routers that saw
one kind of text only choose worse on any other, so prose and source code take turns.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

CALIBRATION_MODULES = (
    "configparser",
    "csv",
    "doctest",
    "enum",
    "fractions",
    "gettext",
    "heapq",
    "imaplib",
    "mailbox",
    "optparse",
    "pathlib",
    "pickle",
    "random",
    "smtplib",
    "statistics",
    "subprocess",
    "tarfile",
    "textwrap",
    "threading",
    "zipfile",
)
"""Modules of the standard library whose source is calibrated on; nothing is measured on it."""
_MODULE_CHARACTERS = 12_000


def calibration_text() -> str:
    """Return what is fitted on: half of the help topics, and source code."""
    return "\n\n".join((_halves()[0], *_sources()))


def heldout_text() -> str:
    """Return the half of Python's help topics that is only ever measured on."""
    return _halves()[1]


@cache
def _halves() -> tuple[str, str]:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    middle = text.index("\n\n", len(text) // 2)
    return text[:middle], text[middle:].lstrip()


@cache
def _sources() -> tuple[str, ...]:
    """Return the modules' sources, each up to a length, without importing them."""
    specs = [find_spec(name) for name in CALIBRATION_MODULES]
    files = [Path(spec.origin) for spec in specs if spec and spec.origin]
    return tuple(
        file.read_text(encoding="utf-8")[:_MODULE_CHARACTERS]
        for file in files
        if file.suffix == ".py" and file.is_file()
    )
