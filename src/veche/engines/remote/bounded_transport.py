"""An HTTP transport that reads no more than it was told to, from no one but the server."""

from collections.abc import AsyncIterator
from ssl import SSLContext

import httpx2

from veche.core.errors import EngineError

_NOT_SENT = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
"""What the client library takes from its own environment variables."""


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Connections to one server, without proxies.

    Args:
        url: the server's; a request to another scheme, host or port is a programmer's error.
        key: the API key, which no one else learns; None sends none.
        limit_bytes: the most bytes of one answer.
        verify: how certificates are checked.
    """

    def __init__(
        self, url: str, *, key: str | None, limit_bytes: int, verify: SSLContext | bool
    ) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._key = key
        self._origin = _origin(httpx2.URL(url))
        self._limit_bytes = limit_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; its answer is counted while it is read."""
        if _origin(request.url) != self._origin:
            raise ValueError(f"a request to {request.url.host} was about to leave its server")
        for name in _NOT_SENT:
            request.headers.pop(name, None)
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)
        stream = _Counted(response, self._limit_bytes)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            await stream.aclose()
            raise EngineError(f"{request.url.host} sends compressed answers, unasked")
        response.stream = stream
        return response


class _Counted(httpx2.AsyncByteStream):
    """A body that ends in an error when it is too long."""

    def __init__(self, response: httpx2.Response, limit_bytes: int) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - of this transport
        self._stream = response.stream
        self._left_bytes = limit_bytes
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
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
