"""A model behind HTTP: parallel requests that share the server's prefix cache."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TypeVar

from veche.core.errors import EngineError, InputError, UnsupportedError
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    OnRouting,
    OnToken,
    Routing,
    Sampling,
    Trunk,
    require,
    require_for,
)
from veche.engines.remote import adapters
from veche.engines.remote.address import parse_address
from veche.engines.remote.dials import DIALS, Continuation, continuation, obeys, turned
from veche.engines.remote.failures import StreamDiedError, excerpt
from veche.engines.remote.markup import as_data
from veche.engines.remote.probe import probe, say, tokenize_request
from veche.engines.remote.reply import Bill, Reply
from veche.engines.remote.requests import Messages, answered, appended, asked
from veche.engines.remote.routed_experts import read_routing, router_shape, routing_fields
from veche.engines.remote.session import Server, Session, all_of
from veche.engines.remote.settings import RemoteSettings
from veche.engines.remote.wire import TokenList, read

_MARKUP_TOKENS = 32  # of a template, around a conversation that the server has not counted

Result = TypeVar("Result")


class RemoteTrunk:
    """A conversation that the server has prefilled; its texts are kept here, its cache there."""

    def __init__(self, messages: Messages, num_tokens: int) -> None:
        self.messages: Messages | None = messages
        self.num_tokens = num_tokens


class RemoteEngine:
    """An OpenAI-compatible server.

    NOTE: a conversation only grows at its end, and every request sends it whole. So a request's
    prompt begins with the trunk's tokens, which the server's prefix cache holds since the trunk
    was opened; what it holds no longer is prefilled again, which costs time and changes nothing.

    Args:
        model: the address, as the user typed it.
        settings: timeouts and the like.
    """

    def __init__(self, model: str, settings: RemoteSettings) -> None:
        address = parse_address(model)
        self._address = address
        self._settings = settings
        self._server = Server(
            address,
            timeout_s=settings.timeout_s,
            max_retries=settings.max_retries,
            key_variable=settings.key_variable,
        )
        self._shape = None if settings.config is None else router_shape(settings.config)
        self._facts = self._server.run(
            lambda session: probe(
                session, address, context_tokens=settings.context_tokens, shape=self._shape
            )
        )
        self.name = f"{excerpt(self._facts.form.model)} at {address.host}"
        self.context_tokens = self._facts.context_tokens
        self._obeyed: dict[str, bool] = {}
        self._continuation: Continuation | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the probe saw at creation."""
        return self._facts.capabilities

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` adds to a trunk, by the server's own tokenizer.

        Where a server does not count, an upper bound: a token is at least one byte of UTF-8.
        """
        text = as_data(text)
        if not text or not self._facts.tokenizes:
            return len(text.encode())
        request = tokenize_request(self._facts.form, text)
        url = f"{self._address.root_url}/tokenize"
        value = self._server.run(lambda session: session.post(url, request))
        return len(read(TokenList, value, host=self._address.host).tokens)

    def open_trunk(self, *, system: str, user: str) -> RemoteTrunk:
        """Let the server prefill the system message and the beginning of the user's turn."""
        if not system and not user:
            raise InputError("there is nothing to ask: the trunk would be empty")
        self._require_room(self.count_tokens(system) + self.count_tokens(user))
        messages = self._facts.form.opening(system, user)
        trunk = RemoteTrunk(messages, 0)
        self._prefill(trunk, messages)
        return trunk

    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append `text` to the open turn, and let the server prefill it."""
        mine = _mine(trunk)
        if not text:
            return 0
        self._require_room(mine.num_tokens + self.count_tokens(text))
        return self._prefill(mine, appended(_messages(mine), text))

    def decode(
        self,
        trunk: Trunk,
        branches: Sequence[Branch],
        on_token: OnToken | None = None,
        *,
        on_routing: OnRouting | None = None,
        cancel: Event | None = None,
    ) -> list[BranchResult]:
        """Let all branches answer, as parallel requests.

        A request that brought nothing yet is sent again; one that breaks in the middle ends the
        batch with one EngineError, and every other request is closed.
        """
        require_for(self, branches)
        mine = _mine(trunk)
        self._require_dials(branches)
        bills = [self._require_branch_room(mine, branch) for branch in branches]
        replies = [
            Reply(branch, on_token, repeated=self._repeated(mine, branch)) for branch in branches
        ]

        async def work(session: Session) -> None:
            gate = asyncio.Semaphore(self._settings.concurrency)
            await all_of([self._answer(session, gate, mine, reply) for reply in replies], cancel)

        if replies:
            longest = max(branch.sampling.max_new_tokens for branch in branches)
            self._server.run(work, max_new_tokens=longest)
        for reply in replies:
            reply.cancel()
        results = [
            self._result(mine, reply, bill) for reply, bill in zip(replies, bills, strict=True)
        ]
        if on_routing is not None:
            _tell(results, on_routing)
        return results

    def close_trunk(self, trunk: Trunk) -> None:
        """Forget the conversation; the server drops its cache when it needs the room."""
        _mine(trunk).messages = None

    def load_adapter(self, name: str, folder: Path) -> str:
        """Load a PEFT folder that the server sees under the same path; return its content hash.

        A token is decoded with it, since some servers load what they cannot run.
        """
        require(self, Capability.ADAPTERS)
        style, form = self._facts.adapter_style, self._facts.form
        assert style is not None  # noqa: S101 - the capability says so
        content = adapters.content_hash(folder)
        self._server.run(
            lambda session: adapters.load(
                session, self._address, style, form, name=name, folder=folder
            )
        )
        return content

    def unload_adapter(self, name: str) -> None:
        """Let the server forget an adapter."""
        require(self, Capability.ADAPTERS)
        style = self._facts.adapter_style
        assert style is not None  # noqa: S101 - the capability says so
        self._server.run(lambda session: adapters.unload(session, self._address, style, name))

    def _prefill(self, trunk: RemoteTrunk, messages: Messages) -> int:
        """Ask for one token behind `messages`, which brings them into the server's cache."""
        reply = self._server.run(
            lambda session: say(session, self._facts.form, messages, Sampling(max_new_tokens=1))
        )
        before = trunk.num_tokens
        if reply.usage is None:
            texts = sum(self.count_tokens(turn.content) for turn in messages)
            trunk.num_tokens = texts + _MARKUP_TOKENS
        else:
            trunk.num_tokens = reply.usage.prompt_tokens
        trunk.messages = messages
        return max(0, trunk.num_tokens - before)

    async def _answer(
        self, session: Session, gate: asyncio.Semaphore, trunk: RemoteTrunk, reply: Reply
    ) -> None:
        async with gate:
            for has_another_try in (self._settings.max_retries > 0, False):
                try:
                    await self._stream(session, trunk, reply)
                except StreamDiedError as error:
                    if reply.num_tokens == 0 and not error.is_told and has_another_try:
                        continue
                    raise self._died(reply, error) from error
                return

    def _died(self, reply: Reply, error: StreamDiedError) -> EngineError:
        voice, host = reply.branch.voice, self._address.host
        what = (
            f"{host} died in the middle of an answer, after {reply.num_tokens} tokens of voice "
            f"{voice!r}"
            if reply.num_tokens
            else f"{host} gave no answer to voice {voice!r}"
        )
        return EngineError(
            f"{what}: {excerpt(error)}",
            hint="nothing of this batch is kept: see the server's log, and ask again",
        )

    async def _stream(self, session: Session, trunk: RemoteTrunk, reply: Reply) -> None:
        branch = reply.branch
        body = self._facts.form.request(
            asked(_messages(trunk), branch),
            self._sampling(branch),
            capture=branch.capture,
            json_schema=branch.json_schema,
            model=self._model_of(branch),
        )
        if branch.capture.routing and self._facts.routing_style is not None:
            body |= routing_fields(self._facts.routing_style, trunk.num_tokens)
        async with aclosing(session.chunks(body)) as chunks:
            async for chunk in chunks:
                reply.take(chunk)
                if reply.is_cut:
                    return
        if reply.finish_reason is None:
            raise StreamDiedError("the stream ended before the answer did")

    def _result(self, trunk: RemoteTrunk, reply: Reply, estimate: Bill) -> BranchResult:
        kept = None
        if reply.branch.keep:
            messages = answered(asked(_messages(trunk), reply.branch), reply.text)
            bill = reply.bill(estimate)
            prompt = bill.prefilled_tokens + bill.reused_tokens
            kept = RemoteTrunk(messages, prompt + reply.num_tokens)
        return reply.result(estimate, routing=self._routing(reply), trunk=kept)

    def _routing(self, reply: Reply) -> Routing | None:
        style, shape = self._facts.routing_style, self._shape
        if style is None or shape is None or reply.routed_experts is None:
            return None
        return read_routing(reply.routed_experts, style, shape, num_tokens=reply.num_tokens)

    def _sampling(self, branch: Branch) -> Sampling:
        neutral = {name: DIALS[name] for name in self._settings.without}
        return replace(branch.sampling, **neutral) if neutral else branch.sampling  # type: ignore[arg-type]

    def _model_of(self, branch: Branch) -> str | None:
        style = self._facts.adapter_style
        if branch.adapter is None or style is None:
            return None
        return adapters.adapter_model(style, self._facts.form, branch.adapter)

    def _require_dials(self, branches: Sequence[Branch]) -> None:
        """Refuse a dial that the server lets pass; each is tried once, when first asked for."""
        wanted = {dial for branch in branches for dial in turned(self._sampling(branch))}
        for dial in sorted(wanted):
            if dial not in self._obeyed:
                self._obeyed[dial] = self._try(obeys, dial)
            if not self._obeyed[dial]:
                raise UnsupportedError(
                    f"{self.name} does not obey {dial}: its answers are the same without it",
                    hint=f"to ask without it: --engine-option without={dial}",
                )

    def _repeated(self, trunk: RemoteTrunk, branch: Branch) -> str:
        """Return what the server will say again when the branch goes on with an answer.

        Raises:
            UnsupportedError: it can't go on with one.
        """
        last = _messages(trunk)[-1]
        if last.role != "assistant" or branch.instruction:
            return ""
        if self._continuation is None:
            self._continuation = self._try(continuation)
        if self._continuation == "refused":
            raise UnsupportedError(
                f"{self.name} can't go on with an answer, only begin another",
                hint="give the branch an instruction: it is then the user's next turn",
            )
        return last.content if self._continuation == "repeated" else ""

    def _try(self, trial: Callable[..., Awaitable[Result]], *arguments: str) -> Result:
        form = self._facts.form
        return self._server.run(lambda session: trial(session, form, *arguments))

    def _require_branch_room(self, trunk: RemoteTrunk, branch: Branch) -> Bill:
        suffix_tokens = self.count_tokens(branch.instruction)
        need = trunk.num_tokens + suffix_tokens + branch.sampling.max_new_tokens
        self._require_room(need)
        return Bill(prefilled_tokens=suffix_tokens, reused_tokens=trunk.num_tokens)

    def _require_room(self, num_tokens: int) -> None:
        if num_tokens > self.context_tokens:
            raise InputError(
                f"{num_tokens} tokens are needed, but {self.name} has a context of "
                f"{self.context_tokens}",
                hint="ask something shorter, or allow fewer new tokens",
            )


def _tell(results: Sequence[BranchResult], on_routing: OnRouting) -> None:
    for result in results:
        routing = result.routing
        if routing is not None:
            for ids_Lk, weights_Lk in zip(routing.expert_ids, routing.weights, strict=True):
                on_routing(result.voice, ids_Lk, weights_Lk)


def _mine(trunk: Trunk) -> RemoteTrunk:
    if not isinstance(trunk, RemoteTrunk) or trunk.messages is None:
        raise ValueError("this trunk was closed, or opened by another engine")
    return trunk


def _messages(trunk: RemoteTrunk) -> Messages:
    assert trunk.messages is not None  # noqa: S101 - _mine() has looked
    return trunk.messages
