"""What commands print: results on stdout, progress and errors on stderr."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from veche.core.errors import InputError, VecheError
from veche.core.json_text import json_text
from veche.core.language import LANGUAGES, Language, language_from_environment
from veche.core.progress import Advance

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return `text` with control characters spelt out: a name must not drive a terminal."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


class PlainConsole(Console):
    """A console that prints texts as they are: no markup, no emoji codes, no control characters.

    Names come from recipes, logs and models of others: `[/red]` in one is no markup, and an escape
    sequence in one does nothing.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, with control characters of the text itself spelt out."""
        for segment in super().render(renderable, options):
            is_safe = segment.control or not _CONTROLS.search(segment.text)
            yield segment if is_safe else Segment(printable(segment.text), segment.style)


stdout = PlainConsole()
stderr = PlainConsole(stderr=True)

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")
]
LanguageOption = Annotated[
    str | None,
    typer.Option("--lang", help="en or ru.", show_default="from the locale", metavar="LANG"),
]


def chosen_language(given: str | None) -> Language:
    """Return the language of the option, or of the user's locale.

    Raises:
        InputError: veche does not speak it.
    """
    if given is None:
        return language_from_environment()
    if given not in LANGUAGES:
        raise InputError(
            f"veche does not speak {given!r}", hint=f"--lang takes: {', '.join(LANGUAGES)}"
        )
    return given


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; what is not a number (NaN, Infinity) is null."""
    sys.stdout.write(json_text(value))


def print_error(error: VecheError, *, as_json: bool) -> None:
    """Print what is wrong and what to do: for people on stderr, as JSON on stdout."""
    if as_json:
        kind = type(error).__name__
        print_json({"error": {"type": kind, "message": error.message, "hint": error.hint}})
        return
    stderr.print("error: ", style="bold red", end="")
    stderr.print(error.message, soft_wrap=True)
    if error.hint:
        stderr.print("  try: ", style="bold", end="")
        stderr.print(error.hint, soft_wrap=True)


class TerminalProgress:
    """Progress bars on stderr; plain lines where stderr is no terminal."""

    def say(self, text: str) -> None:
        """Show one line of explanation."""
        stderr.print(text, soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """Show a bar while the block runs."""
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bars:
            task = bars.add_task(label, total=total)
            yield lambda amount: bars.update(task, advance=amount)
