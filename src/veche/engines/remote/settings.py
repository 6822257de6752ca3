"""What the user may say of a server."""

from dataclasses import dataclass
from pathlib import Path

from veche.core.errors import InputError
from veche.engines.remote.dials import DIALS


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """What the user may say of a server; see `veche.engines.openai.create`."""

    context_tokens: int | None = None
    timeout_s: float = 600.0
    max_retries: int = 2
    concurrency: int = 16
    without: frozenset[str] = frozenset()
    key_variable: str = "OPENAI_API_KEY"
    config: Path | None = None

    def __post_init__(self) -> None:
        if self.context_tokens is not None and self.context_tokens < 1:
            raise InputError(f"context_tokens is {self.context_tokens}, below 1")
        if not 0 < self.timeout_s < float("inf"):
            raise InputError(f"timeout_s is {self.timeout_s}, not a positive number of seconds")
        if self.max_retries < 0:
            raise InputError(f"max_retries is {self.max_retries}, below 0")
        if self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}, below 1")
        if unknown := sorted(self.without - DIALS.keys()):
            raise InputError(
                f"without names {', '.join(unknown)}, which is no dial to do without",
                hint=f"use one of {', '.join(DIALS)}",
            )
