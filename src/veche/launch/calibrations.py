"""What this machine's start-up logs have taught, kept under VECHE_HOME."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.core.errors import InputError
from veche.core.files import read_json_object, sole_writer, write_json
from veche.core.paths import home
from veche.launch.comparison import Comparison
from veche.launch.memory import Span

WhyNot = Literal["read_before", "other_weights", "no_overhead", "far_outside"]
SCHEMA = 1
_ANEW = "forget it, and read the logs again: veche launch calibrations --forget"
FIRST_MARGIN = 0.25
"""Of the general interval's width: how far around one observation the next may lie."""


_Word = Annotated[str, Field(max_length=200)]


class _Entry(BaseModel):
    """What one log has taught."""

    model_config = ConfigDict(extra="forbid", strict=True)

    machine: _Word
    engine: _Word
    engine_version: _Word | None
    gpu: _Word
    num_gpus: int = Field(ge=1, le=1 << 20)
    position: float = Field(ge=-1, le=2, allow_inf_nan=False)
    overhead_bytes: int = Field(ge=0, le=1 << 60)
    digest: _Word


class _Store(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_: Literal[1] = Field(alias="schema")
    entries: list[_Entry]


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
    try:
        store = _Store.model_validate(read_json_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is damaged: {where}: {first['msg'].lower()}", hint=_ANEW
        ) from error
    return [entry.model_dump() for entry in store.entries]


def learn(comparison: Comparison) -> bool:
    """Keep what a log teaches for this machine; return False if it teaches nothing new.

    A log whose weights are not the predicted ones is of another model or quantisation, and one
    far outside the interval is of a shared card: neither teaches anything about the overhead.
    """
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
    with sole_writer(calibrations_file()):
        if why_not(comparison) is not None:
            return False
        write_json(calibrations_file(), {"schema": SCHEMA, "entries": [*calibrations(), entry]})
    return True


def forget() -> int:
    """Forget everything that was learned, a damaged file too; return how many logs it was."""
    path = calibrations_file()
    with sole_writer(path):
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
