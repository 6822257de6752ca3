"""llama.cpp's shared library: loaded once, silent, its last complaint kept for our errors."""

import ctypes
from collections import deque
from functools import cache
from typing import Any

_ERROR_LEVEL, _CONTINUED = 4, 5
"""GGML_LOG_LEVEL_ERROR and GGML_LOG_LEVEL_CONT of ggml.h."""
_KEPT_LINES = 8


class _Complaints:
    """What llama.cpp logged as errors, last first to go; everything else is dropped."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._is_error = False

    def hear(self, level: int, text: bytes, _: Any) -> None:
        """Keep a line of llama.cpp's log if it is an error."""
        if level != _CONTINUED:
            self._is_error = level == _ERROR_LEVEL
        if self._is_error and (line := text.decode(errors="replace").strip()):
            self._lines.append(line)

    def take(self) -> str:
        """Return the most telling line since the last time; "" if there was none."""
        telling = [line for line in self._lines if "error" in line] or list(self._lines)
        self._lines.clear()
        return telling[0] if telling else ""


_COMPLAINTS = _Complaints()


@cache
def library() -> Any:
    """Return llama-cpp-python's low-level module, its backend initialised and its log ours."""
    from llama_cpp import llama_cpp

    llama_cpp.llama_log_set(_log_callback(llama_cpp), None)
    llama_cpp.llama_backend_init()
    return llama_cpp


def last_complaint(otherwise: str) -> str:
    """Return and forget what llama.cpp last logged as an error."""
    return _COMPLAINTS.take() or otherwise


def symbol(name: str, restype: Any, *argtypes: Any) -> Any:
    """Return a function of ggml, which the binding has no name for."""
    function = getattr(library()._lib, name)  # noqa: SLF001 - libllama leads to libggml
    function.restype, function.argtypes = restype, list(argtypes)
    return function


@cache
def _log_callback(module: Any) -> Any:
    """Return the callback; the cache keeps it alive as long as the library."""
    return module.llama_log_callback(_COMPLAINTS.hear)


def pointer_array(array: Any, c_type: Any) -> Any:
    """Return a numpy array's memory as a C pointer; the array must be kept alive."""
    return array.ctypes.data_as(ctypes.POINTER(c_type))
