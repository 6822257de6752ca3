"""What commands print: results on stdout, progress and errors on stderr."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from veche.core.errors import InputError, VecheError
from veche.core.language import LANGUAGES, Language, language_from_environment
from veche.core.progress import Advance

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

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
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_error(error: VecheError, *, as_json: bool) -> None:
    """Print what is wrong and what to do: for people on stderr, as JSON on stdout."""
    if as_json:
        kind = type(error).__name__
        print_json({"error": {"type": kind, "message": error.message, "hint": error.hint}})
        return
    stderr.print("[bold red]error:[/] ", end="")
    stderr.print(error.message, markup=False, soft_wrap=True)
    if error.hint:
        stderr.print("[bold]  try:[/] ", end="")
        stderr.print(error.hint, markup=False, soft_wrap=True)


class TerminalProgress:
    """Progress bars on stderr; plain lines where stderr is no terminal."""

    def say(self, text: str) -> None:
        """Show one line of explanation."""
        stderr.print(text, markup=False, soft_wrap=True)

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
