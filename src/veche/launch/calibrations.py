"""What this machine's start-up logs have taught, kept under VECHE_HOME."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from veche.core.errors import InputError
from veche.core.files import read_json_object, write_json
from veche.core.paths import home
from veche.launch.comparison import Comparison
from veche.launch.memory import Span

WhyNot = Literal["read_before", "other_weights", "no_overhead", "far_outside"]
SCHEMA = 1
FIRST_MARGIN = 0.25
"""Of the general interval's width: how far around one observation the next may lie."""


def calibrations_file() -> Path:
    """Return the file in which corrections are kept."""
    return home() / "launch" / "calibrations.json"


def calibrations() -> list[dict[str, Any]]:
    """Return everything that was learned: one entry a log.

    Raises:
        InputError: the file is damaged.
    """
    path = calibrations_file()
    if not path.exists():
        return []
    value = read_json_object(path)
    entries = value.get("entries")
    if value.get("schema") != SCHEMA or not isinstance(entries, list):
        raise InputError(f"{path} is damaged", hint="delete it; logs can be read again")
    return entries


def learn(comparison: Comparison) -> bool:
    """Keep what a log teaches for this machine; return False if it teaches nothing new.

    A log whose weights are not the predicted ones is of another model or quantisation, and one
    far outside the interval is of a shared card: neither teaches anything about the overhead.
    """
    if why_not(comparison) is not None:
        return False
    case = comparison.case
    entry = {
        "machine": platform.node(),
        "engine": case.engine,
        "engine_version": case.engine_version,
        "gpu": case.gpu.name,
        "num_gpus": case.layout.num_gpus,
        "position": round(comparison.position or 0.0, 6),
        "overhead_bytes": comparison.overhead_bytes,
        "digest": comparison.digest,
    }
    write_json(calibrations_file(), {"schema": SCHEMA, "entries": [*calibrations(), entry]})
    return True


def forget() -> int:
    """Forget everything that was learned, a damaged file too; return how many logs it was."""
    path = calibrations_file()
    try:
        count = len(calibrations())
    except InputError:
        count = 0
    path.unlink(missing_ok=True)
    return count


def why_not(comparison: Comparison) -> WhyNot | None:
    """Return why a log teaches nothing; None if it teaches something."""
    if any(entry["digest"] == comparison.digest for entry in calibrations()):
        return "read_before"
    if any(not line.holds for line in comparison.lines if line.quantity == "weight_bytes"):
        return "other_weights"
    if comparison.position is None:
        return "no_overhead"
    return None if -1 <= comparison.position <= 2 else "far_outside"


def spans(gpu: str, num_gpus: int = 1) -> Mapping[str, Span]:
    """Return, by engine, the part of the general interval that this machine's logs leave.

    Around the positions seen, a margin of 0.25 / n of the general width: one log narrows the
    interval to half, many narrow it to what was seen. Logs of one card say nothing about many.
    """
    seen: dict[str, list[float]] = {}
    for entry in calibrations():
        is_here = entry["machine"] == platform.node() and entry["gpu"] == gpu
        if is_here and entry["num_gpus"] == num_gpus:
            seen.setdefault(entry["engine"], []).append(float(entry["position"]))
    return {
        engine: (min(values) - FIRST_MARGIN / len(values), max(values) + FIRST_MARGIN / len(values))
        for engine, values in seen.items()
    }
