"""Choose how to verify: with whole models in memory, or layer by layer."""

import os
from pathlib import Path
from typing import Literal

from veche.checkpoint.reader import open_checkpoint
from veche.core.units import format_bytes
from veche.surgery.verification.figures import Form

FormChoice = Literal["long", "short", "auto"]
COMFORTABLE = 0.4
"""Share of the free memory that a whole model in float32 may take."""
_FP32_BYTES = 4


def chosen_form(source: Path, target: Path, *, free_bytes: int | None) -> tuple[Form, str]:
    """Return the form that fits, and why.

    Args:
        source: a checkpoint folder.
        target: another.
        free_bytes: memory of the device that is free; None where it is unknown.

    Raises:
        CheckpointError: a folder is no checkpoint.
    """
    num_elements = max(
        sum(info.num_elements for info in open_checkpoint(folder).tensors.values())
        for folder in (source, target)
    )
    needed = _FP32_BYTES * num_elements
    size = f"the larger model in float32 takes {format_bytes(needed)}"
    if free_bytes is None:
        return "long", f"{size}, and how much memory is free is unknown here"
    if needed <= COMFORTABLE * free_bytes:
        return "short", f"{size}, at most {COMFORTABLE:.0%} of the {format_bytes(free_bytes)} free"
    return "long", f"{size}, more than {COMFORTABLE:.0%} of the {format_bytes(free_bytes)} free"


def free_memory() -> int | None:
    """Return the main memory that programs can still take; None where it is unknown."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
