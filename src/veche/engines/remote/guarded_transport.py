"""An HTTP transport that waits and reads no longer than it was told to, from one server alone."""

import asyncio
from collections.abc import AsyncIterator
from ssl import SSLContext

import httpx2

from veche.core.errors import EngineError

EVENT_STREAM = "text/event-stream"
_NOT_SENT = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
"""What the client library takes from its own environment variables."""


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """Connections to one server, without proxies.

    Each request has its own time, so that waiting before another try counts for none. A stream of
    events has all the time in the world here: who reads it knows what counts as a sign of life.

    Args:
        url: the server's; a request to another scheme, host or port is a programmer's error.
        key: the API key, which no one else learns; None sends none.
        timeout_s: the longest wait for an answer's head, then for the rest of it.
        limit_bytes: the most bytes of one answer.
        verify: how certificates are checked.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout_s: float,
        limit_bytes: int,
        verify: SSLContext | bool,
    ) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._key = key
        self._origin = _origin(httpx2.URL(url))
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; its answer is counted while it is read.

        Raises:
            TimeoutError: the server said nothing; the client library does not try again then.
        """
        if _origin(request.url) != self._origin:
            raise ValueError(f"a request to {request.url.host} was about to leave its server")
        for name in _NOT_SENT:
            request.headers.pop(name, None)
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        request.headers["Accept-Encoding"] = "identity"
        async with asyncio.timeout(self._timeout_s):
            response = await super().handle_async_request(request)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        stream = _Guarded(
            response, self._limit_bytes, None if is_event_stream(response) else deadline
        )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            await stream.aclose()
            raise EngineError(f"{request.url.host} sends compressed answers, unasked")
        response.stream = stream
        return response


def is_event_stream(response: httpx2.Response) -> bool:
    """Whether an answer comes as events, not as a whole."""
    kind: str = response.headers.get("Content-Type", "")
    return kind.partition(";")[0].strip().lower() == EVENT_STREAM


class _Guarded(httpx2.AsyncByteStream):
    """A body that ends in an error when it is too long, or comes too late."""

    def __init__(self, response: httpx2.Response, limit_bytes: int, deadline: float | None) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - of this transport
        self._stream = response.stream
        self._deadline = deadline
        self._left_bytes = limit_bytes
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._stream)
        while True:
            async with asyncio.timeout_at(self._deadline):
                part = await anext(parts, None)
            if part is None:
                return
            self._left_bytes -= len(part)
            if self._left_bytes < 0:
                raise EngineError(
                    f"the server's answer has no end: more than {self._limit_bytes:,} bytes came",
                    hint="check the address: is it a language model's server?",
                )
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
