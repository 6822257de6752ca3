"""What a card in the user's gpus.yaml may say."""

import difflib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

_Quantity = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class GpuEntry(BaseModel):
    """One card, as the user writes it; see veche.launch.gpus.Gpu."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visible_gib: tuple[_Quantity, _Quantity]
    bandwidth_gb_s: _Quantity
    tflops: dict[str, _Quantity]
    compute_capability: str = Field(pattern=r"^([0-9]{1,3}\.[0-9]|gfx\w{1,20})$")
    title: str = ""
    source: str = "the user's file"
    aliases: tuple[str, ...] = ()
    has_unified_memory: bool = False

    @field_validator("visible_gib", mode="before")
    @classmethod
    def _accept_one_number(cls, value: object) -> object:
        return (value, value) if isinstance(value, int | float) else value

    @field_validator("visible_gib")
    @classmethod
    def _require_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be positive, the lower number first")
        return value

    @field_validator("tflops")
    @classmethod
    def _require_bf16(cls, value: dict[str, float]) -> dict[str, float]:
        if value.get("bf16", 0) <= 0:
            raise ValueError("bf16 is missing")
        return value


def problem_in(entry: object) -> str:
    """Say what is wrong with an entry, in one line; empty if nothing is."""
    try:
        GpuEntry.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, GpuEntry.model_fields, n=1, cutoff=0.4)
            return f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
        return f"{key}: {first['msg'].lower()}" if key else first["msg"].lower()
    return ""
