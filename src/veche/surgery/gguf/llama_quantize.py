"""llama.cpp's own tool for K-quants: where it is, and one run of it."""

import shutil
import subprocess
from pathlib import Path

from veche.core.errors import FailureError, UnsupportedError

TOOL = "llama-quantize"
_HOW = (
    "install llama.cpp (https://github.com/ggml-org/llama.cpp/releases, or brew install llama.cpp) "
    "so that llama-quantize is on PATH; or write --type bf16 here and run llama-quantize "
    "FILE-bf16.gguf FILE.gguf {type} on another machine"
)
_LAST_LINES = 3


def find_tool(type_name: str) -> Path:
    """Return where llama-quantize is.

    Raises:
        UnsupportedError: it is not on PATH.
    """
    found = shutil.which(TOOL)
    if found is None:
        raise UnsupportedError(
            f"--type {type_name.lower()} is made by llama.cpp's own tool {TOOL}, which is not on "
            "PATH",
            hint=_HOW.format(type=type_name),
        )
    return Path(found)


def quantize(tool: Path, source: Path, target: Path, type_name: str) -> None:
    """Write `source`, a GGUF file of 16-bit values, as `target` of another type.

    Raises:
        FailureError: the tool failed; its last words are in the message.
    """
    command = [str(tool), str(source), str(target), type_name]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise FailureError(
            f"{' '.join(command)} failed with code {done.returncode}: "
            + " | ".join(said[-_LAST_LINES:]),
            hint="is the disk full? else: --type bf16, and look at what the tool says of that file",
        )
