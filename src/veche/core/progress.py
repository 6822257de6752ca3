"""How long work tells someone how far it is."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Where long work reports to: a terminal, an event stream, or nobody."""

    def say(self, text: str) -> None:
        """Show one line of explanation."""

    def task(self, label: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Open a piece of work of `total` units; call the result with each amount done."""


class Silent:
    """Progress that nobody watches."""

    def say(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda amount: None
