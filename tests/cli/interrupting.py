"""Run veche as its own process, and stop it as Ctrl-C would."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass

_SECONDS = 60
_PROGRAM = """
import signal
# A shell that starts pytest in the background has SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from veche.cli.main import run
run()
"""


@dataclass(frozen=True)
class Stopped:
    """A process that was interrupted."""

    code: int
    out: str
    err: str


def interrupt(arguments, when):
    """Run veche as its own process, and send SIGINT as soon as `when()` holds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + _SECONDS
        while not when():
            assert process.poll() is None, f"it ended before: {process.communicate()}"
            assert time.monotonic() < end, "it never got there"
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_SECONDS)
    finally:
        process.kill()
        process.wait()
    return Stopped(process.returncode, out, err)
