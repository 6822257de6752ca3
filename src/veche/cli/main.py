"""`veche`: every command, and the one place that prints errors.

Command files import their libraries inside the function, so that `veche --help` loads none of them.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from veche import __version__
from veche.cli.ask import ask
from veche.cli.build import build
from veche.cli.carve import carve
from veche.cli.demo import demo
from veche.cli.dial import dial
from veche.cli.doctor import doctor
from veche.cli.experts import experts
from veche.cli.export import export
from veche.cli.gpus import gpus
from veche.cli.heal import heal
from veche.cli.launch import launch
from veche.cli.operations import operations
from veche.cli.plan import plan
from veche.cli.recipe import recipe
from veche.cli.role import role
from veche.cli.steer import steer
from veche.cli.terminal import print_error
from veche.cli.verify import verify
from veche.core.errors import DiskError, FailureError, InputError, StoppedError, VecheError

_CLOSED = InputError(
    "the standard output is closed, so there is nowhere to write results to",
    hint="where nobody is to read them: veche … > /dev/null",
)
_NO_MEMORY = FailureError(
    "the memory is not enough for this", hint="close other programs, or see ulimit -v"
)
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""click's UsageError, from click itself or from the copy that newer versions of typer carry."""

app = typer.Typer(
    name="veche",
    help="Grow an open Mixture-of-Experts checkpoint, prove it, and let its voices deliberate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"veche {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Grow an open Mixture-of-Experts checkpoint, prove it, and let its voices deliberate."""


_COMMANDS: tuple[Callable[..., None] | typer.Typer, ...] = (
    carve, recipe, plan, operations, build, verify, export, launch, gpus, ask, experts, dial, steer,
    heal, role, demo, doctor,
)  # fmt: skip
for _command in _COMMANDS:
    if isinstance(_command, typer.Typer):
        app.add_typer(_command)
    else:
        app.command()(_command)


def run() -> None:
    """Run the command line; exit with 0, 1 (failure), 2 (bad input) or 130 (interrupted)."""
    if not isinstance(sys.stderr, io.TextIOBase):  # closed: its number must not become a file's
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if not isinstance(sys.stdout, io.TextIOBase):
        _report(_CLOSED, as_json=False)
        sys.exit(_CLOSED.exit_code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal that cannot show a letter shows its code
            stream.reconfigure(errors="backslashreplace")
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # Python would try once more at its end, and complain: give it somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or FailureError.exit_code
    sys.exit(code)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    as_json = "--json" in arguments
    try:
        code = int(app(arguments, prog_name="veche", standalone_mode=False) or 0)
        if code == StoppedError.exit_code:  # typer has caught the KeyboardInterrupt
            _report(StoppedError(), as_json=as_json)
        return code
    except VecheError as error:
        _report(error, as_json=as_json)
        return error.exit_code
    except _USAGE_ERROR as error:
        return _usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        _report(StoppedError(), as_json=as_json)
        return StoppedError.exit_code
    except BrokenPipeError:
        return 0
    except MemoryError:
        _report(_NO_MEMORY, as_json=as_json)
        return _NO_MEMORY.exit_code
    except OSError as error:
        is_about_a_file = error.filename is not None  # else stdout itself may be what failed
        is_input = error.errno == errno.ENAMETOOLONG
        refusal = (InputError if is_input else DiskError)(f"the system refused: {error}")
        _report(refusal, as_json=as_json and is_about_a_file)
        return refusal.exit_code


def _report(error: VecheError, *, as_json: bool) -> None:
    """Print an error, on stderr where stdout takes nothing; the exit code says it at any rate."""
    try:
        print_error(error, as_json=as_json)
    except OSError:
        with suppress(OSError):
            print_error(error, as_json=False)


def _usage(error: Any, *, as_json: bool) -> int:
    """Print a mistake on the command line as every other error; a bare group prints its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return 0
    command = error.ctx.command_path if error.ctx else "veche"
    _report(InputError(error.format_message(), hint=f"{command} --help"), as_json=as_json)
    return InputError.exit_code
