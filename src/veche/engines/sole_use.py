"""Let one thread at a time use what cannot be shared, such as a model with hooks in place."""

from collections.abc import Callable
from functools import wraps
from threading import Lock, get_ident
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from veche.core.errors import EngineError

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


class SoleUse:
    """A lock that tells whoever holds it already, instead of waiting for ever."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        """Wait for other threads.

        Raises:
            EngineError: this thread is in the block already.
        """
        if self._holder == get_ident():
            raise EngineError(
                "the engine was asked for something while it was answering, by a callback of that "
                "very answer",
                hint="ask once the answer is there, or ask another engine",
            )
        self._lock.acquire()
        self._holder = get_ident()

    def __exit__(self, *error: object) -> None:
        """Let the next thread in."""
        self._holder = None
        self._lock.release()


class Shared(Protocol):
    """What has methods that are not to run at once."""

    sole_use: SoleUse


Owner = TypeVar("Owner", bound=Shared)


def one_at_a_time(
    method: Callable[Concatenate[Owner, Asked], Answer],
) -> Callable[Concatenate[Owner, Asked], Answer]:
    """Make a method one that only one thread at a time is in, together with all such methods."""

    @wraps(method)
    def alone(self: Owner, /, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        with self.sole_use:
            return method(self, *args, **kwargs)

    return alone
