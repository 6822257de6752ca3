"""What went wrong between veche and a server, in words."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import openai

from veche.core.errors import EngineError

_MAX_EXCERPT = 300


class StreamDiedError(Exception):
    """An answer's stream ended, or broke, before the answer did.

    Attributes:
        is_told: the server itself says why: to ask again would not help.
    """

    def __init__(self, why: str, *, is_told: bool = False) -> None:
        super().__init__(why)
        self.is_told = is_told


def excerpt(text: object) -> str:
    """Return what a server said as one short printable line."""
    printable = "".join(mark if mark.isprintable() else " " for mark in str(text)[:4000])
    line = " ".join(printable.split())
    return line if len(line) <= _MAX_EXCERPT else f"{line[:_MAX_EXCERPT]}…"


@contextmanager
def as_engine_errors(host: str, *, timeout_s: float, key: str | None) -> Iterator[None]:
    """Turn what the client library raises into one EngineError; the key stands in none."""
    try:
        yield
    except openai.APIStatusError as error:
        raise _of_status(error, host, key) from error
    except openai.APIConnectionError as error:
        cause = excerpt(error.__cause__ or error) or "it closes the connection"
        raise EngineError(
            f"{host} does not answer: {cause}",
            hint="is the server running, and is the address right?",
        ) from error
    except (openai.APIError, StreamDiedError) as error:
        raise EngineError(
            f"{host} failed: {_hidden(excerpt(error), key)}", hint="see the server's log"
        ) from error
    except TimeoutError as error:
        raise EngineError(
            f"{host} was silent for {timeout_s:g} s",
            hint="see its log; a slow server needs --engine-option timeout_s=N",
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(
            f"{host} sends garbage instead of JSON: {_hidden(excerpt(error), key)}",
            hint="check the address, and the server's log",
        ) from error


def _of_status(error: openai.APIStatusError, host: str, key: str | None) -> EngineError:
    status = error.status_code
    body = error.body
    said = body.get("message", body) if isinstance(body, dict) else body or error.response.text
    message = f"{host} answers {status}: {_hidden(excerpt(said), key)}".rstrip(": ")
    return EngineError(message, hint=_hint(status, error.response.headers.get("location", "")))


def _hint(status: int, location: str) -> str:
    if 300 <= status < 400:
        return f"it redirects to {excerpt(location)}: if that is right, give that address"
    if status in (401, 403):
        return "put its key into the environment variable OPENAI_API_KEY"
    if status in (404, 405):
        return "check the address: it mostly ends in /v1"
    if status == 429:
        return "it is busy: try later, or with --engine-option concurrency=1"
    if status >= 500:
        return "see the server's log"
    return ""


def _hidden(text: str, key: str | None) -> str:
    return text.replace(key, "***") if key else text
