"""llama.cpp computes in a thread of its own, so that whoever waits for it can stop it."""

import ctypes
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from threading import Event

from veche.engines.llama_cpp.library import library

_LOOK_S = 0.02
"""How long a set event may go unnoticed."""


class Worker:
    """One thread, and the flag that stops what it computes in the middle of a token.

    NOTE: Python runs signal handlers in the main thread only. If that one computed, Ctrl-C would
    be raised inside a callback that llama.cpp calls, and be lost there; here it is raised in
    `run`, which stops the computation before it lets the interrupt through.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="llama.cpp")
        self._flag = ctypes.create_string_buffer(2)
        # llama.cpp asks after every node of the graph: strlen of the flag, "" or "1", answers 0
        # or 1 without entering Python.
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        self.abort_callback = library().ggml_abort_callback(strlen)

    @property
    def abort_data(self) -> int:
        """What llama.cpp hands to `abort_callback`."""
        return ctypes.addressof(self._flag)

    def run(self, compute: Callable[[], int], cancel: Event | None = None) -> int:
        """Compute, and return the status; stop once `cancel` is set, or at Ctrl-C."""
        self._flag.value = b""
        future = self._threads.submit(compute)
        try:
            return self._wait(future, cancel)
        except BaseException:
            self._flag.value = b"1"
            future.exception()
            raise

    def close(self) -> None:
        """End the thread."""
        self._threads.shutdown(wait=False)

    def _wait(self, future: "Future[int]", cancel: Event | None) -> int:
        while cancel is not None:
            try:
                return future.result(_LOOK_S)
            except NotYet:
                if cancel.is_set():
                    self._flag.value = b"1"
                    cancel = None
        return future.result()
