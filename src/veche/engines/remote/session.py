"""Requests to one server: timed, bounded, and all closed when the work is done."""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from threading import Event
from typing import Any, TypeVar

import httpx2
import openai

from veche.core.errors import EngineError, InputError
from veche.engines.remote.address import Address
from veche.engines.remote.failures import StreamDiedError, as_engine_errors, excerpt
from veche.engines.remote.guarded_transport import GuardedTransport, is_event_stream
from veche.engines.remote.wire import Chunk, read

_CONNECT_TIMEOUT_S = 10.0
_BASE_LIMIT_BYTES = 16 << 20
_LIMIT_BYTES_PER_TOKEN = 64 << 10
_POLL_S = 0.02
_END = object()

Result = TypeVar("Result")


class Session:
    """An open client, for as long as one piece of work runs."""

    def __init__(self, client: openai.AsyncOpenAI, host: str, timeout_s: float) -> None:
        self._client = client
        self._host = host
        self._timeout_s = timeout_s

    async def get(self, url: str) -> Any:
        """Return the JSON value at `url`."""
        return await self._client.get(url, cast_to=object)

    async def post(self, url: str, body: Mapping[str, Any], *, is_retried: bool = True) -> Any:
        """Return the answer to a JSON request, JSON or text."""
        client = self._client if is_retried else self._client.with_options(max_retries=0)
        return await client.post(url, cast_to=object, body=body)

    async def chunks(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Yield a chat completion's events; one that is no stream is one event."""
        if not body["stream"]:
            value = await self.post("/chat/completions", body)
            yield read(Chunk, value, host=self._host)
            return
        async with aclosing(self._events(body)) as events:
            async for chunk in events:
                yield chunk

    async def _events(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Yield a stream's events; close the generator, and its connection is closed.

        NOTE: the deadline moves when something came that is part of the answer. Comments, empty
        events and single bytes keep no one waiting longer.

        Raises:
            StreamDiedError: the stream broke after it had begun.
        """
        stream = await self._client.post(
            "/chat/completions",
            cast_to=object,
            body=body,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        deadline = self._deadline()
        async with stream:
            _require_events(stream.response, self._host)
            while True:
                async with asyncio.timeout_at(deadline):
                    value = await _next(stream)
                if value is _END:
                    return
                chunk = read(Chunk, value, host=self._host)
                if chunk.usage or any(_brings(choice) for choice in chunk.choices):
                    deadline = self._deadline()
                yield chunk

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s


class Server:
    """How a server is reached.

    Args:
        address: where it is.
        timeout_s: the longest silence.
        max_retries: how often a request is sent again while nothing of its answer has come: the
            connection failed, or the server answered 408, 409, 429 (after Retry-After) or 5xx.
        key_variable: the environment variable with the API key.
    """

    def __init__(
        self, address: Address, *, timeout_s: float, max_retries: int, key_variable: str
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._key = _key(key_variable)
        is_https = address.base_url.startswith("https:")
        self._verify = ssl.create_default_context() if is_https else False

    def run(
        self, work: Callable[[Session], Awaitable[Result]], *, max_new_tokens: int = 0
    ) -> Result:
        """Do `work` with a session, and wait for it; afterwards no connection is open.

        Raises:
            EngineError: the server did not answer, or not as it should.
        """
        limit_bytes = _BASE_LIMIT_BYTES + _LIMIT_BYTES_PER_TOKEN * max_new_tokens

        async def whole() -> Result:
            async with self._client(limit_bytes) as client:
                return await work(Session(client, self.address.host, self._timeout_s))

        with as_engine_errors(self.address.host, timeout_s=self._timeout_s, key=self._key):
            if not _is_in_a_loop():
                return asyncio.run(whole())
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(lambda: asyncio.run(whole())).result()

    def _client(self, limit_bytes: int) -> openai.AsyncOpenAI:
        url = self.address.base_url
        transport = GuardedTransport(
            url,
            key=self._key,
            timeout_s=self._timeout_s,
            limit_bytes=limit_bytes,
            verify=self._verify,
        )
        return openai.AsyncOpenAI(
            api_key="in the transport",
            base_url=url,
            max_retries=self._max_retries,
            http_client=httpx2.AsyncClient(
                transport=transport,
                timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
                follow_redirects=False,
                trust_env=False,
            ),
        )


async def all_of(work: Sequence[Awaitable[None]], cancel: Event | None) -> None:
    """Wait for all work; the first error, or `cancel`, ends the rest and closes it."""
    tasks = [asyncio.ensure_future(item) for item in work]
    pending = set(tasks)
    try:
        while pending and not (cancel is not None and cancel.is_set()):
            done, pending = await asyncio.wait(
                pending,
                timeout=None if cancel is None else _POLL_S,
                return_when=asyncio.FIRST_EXCEPTION,
            )
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next(stream: openai.AsyncStream[object]) -> object:
    try:
        return await anext(stream, _END)
    except openai.APIConnectionError as error:
        raise StreamDiedError(str(error.__cause__ or error.message)) from error
    except openai.APIError as error:
        raise StreamDiedError(error.message, is_told=True) from error


def _brings(choice: Any) -> bool:
    delta = choice.delta
    text = delta.content or delta.reasoning or delta.reasoning_content
    return bool(text or choice.token_ids or choice.logprobs or choice.finish_reason)


def _require_events(response: httpx2.Response, host: str) -> None:
    if not is_event_stream(response):
        kind = excerpt(response.headers.get("content-type", "nothing"))
        raise EngineError(
            f"{host} answers with {kind!r} instead of a stream of events",
            hint="check the address: it mostly ends in /v1",
        )


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if any(not 32 < ord(mark) < 127 for mark in key):
        raise InputError(f"the key in {variable} holds a space, or a character that is not ASCII")
    return key or None
