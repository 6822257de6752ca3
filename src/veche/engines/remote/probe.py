"""Find out what a server can do, by asking it: an announcement is no proof."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import openai

from veche.core.errors import EngineError, InputError
from veche.engines.protocol import Branch, Capability, Capture, Sampling
from veche.engines.remote.address import Address
from veche.engines.remote.failures import StreamDiedError, excerpt
from veche.engines.remote.reply import Reply
from veche.engines.remote.requests import Messages, RequestForm
from veche.engines.remote.routed_experts import (
    RouterShape,
    RoutingStyle,
    read_routing,
    routing_fields,
)
from veche.engines.remote.session import Session
from veche.engines.remote.wire import ModelList, ServedModel, TokenList, read

_PROBE_JSON = {"veche": "probe"}
_PROBE_SCHEMA = {
    "type": "object",
    "properties": {"veche": {"type": "string", "enum": ["probe"]}},
    "required": ["veche"],
    "additionalProperties": False,
}
AdapterStyle = Literal["vllm", "sglang"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the probe saw.

    Attributes:
        form: how the server wants to be asked.
        context_tokens: the longest sequence.
        tokenizes: it counts tokens when asked.
        adapter_style: whose way of loading adapters it has; None is none.
        routing_style: whose way of returning routed experts it has; None is none.
        capabilities: what was seen to work.
    """

    form: RequestForm
    context_tokens: int
    tokenizes: bool
    adapter_style: AdapterStyle | None
    routing_style: RoutingStyle | None
    capabilities: frozenset[Capability]


async def probe(
    session: Session,
    address: Address,
    *,
    context_tokens: int | None = None,
    shape: RouterShape | None = None,
) -> ServerFacts:
    """Ask a server for its models, then for a few tokens in every way that veche may ask.

    Args:
        session: to the server.
        address: where it is, and which model is meant.
        context_tokens: what the user says of its context.
        shape: of the model's routers, without which routed experts can't be read.

    Raises:
        InputError: it serves several models, or not this one, or hides its context length.
        EngineError: it does not generate.
    """
    listed = await session.get(f"{address.base_url}/models")
    served = _chosen(read(ModelList, listed, host=address.host).data, address)
    form, tells_ids = await _form(session, served.id)
    logprobs, held_json, tokenizes, adapter_style, routing_style = await asyncio.gather(
        _tells_logprobs(session, form),
        _holds_json(session, form),
        _tokenizes(session, form, address),
        _adapter_style(session, address),
        _routing_style(session, form, shape),
    )
    seen = {
        Capability.FORK: True,
        Capability.KEEP: True,
        Capability.LOGPROBS: logprobs,
        Capability.JSON: held_json,
        Capability.ADAPTERS: adapter_style is not None,
        Capability.ROUTING: routing_style is not None,
    }
    return ServerFacts(
        form=replace(form, tells_ids_with_logprobs=logprobs and not tells_ids),
        context_tokens=context_tokens or await _context_tokens(session, address, served),
        tokenizes=tokenizes,
        adapter_style=adapter_style,
        routing_style=routing_style,
        capabilities=frozenset(capability for capability, is_seen in seen.items() if is_seen),
    )


async def say(
    session: Session,
    form: RequestForm,
    messages: Messages,
    sampling: Sampling,
    *,
    capture: Capture | None = None,
    json_schema: Any = None,
    model: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Reply:
    """Return a small whole answer.

    Raises:
        StreamDiedError: it broke off.
    """
    branch = Branch(voice="probe", instruction="", sampling=sampling, capture=capture or Capture())
    reply = Reply(branch)
    body = form.request(messages, sampling, capture=capture, json_schema=json_schema, model=model)
    body.update(fields or {})
    async with aclosing(session.chunks(body)) as chunks:
        async for chunk in chunks:
            reply.take(chunk)
    if reply.finish_reason is None:
        raise StreamDiedError("the answer ended before it was finished")
    return reply


def tokenize_request(form: RequestForm, text: str) -> dict[str, Any]:
    """Return what /tokenize takes: vLLM and SGLang read `prompt`, llama-server `content`."""
    return {
        "model": form.model,
        "prompt": text,
        "content": text,
        "add_special_tokens": False,
        "add_special": False,
    }


def _chosen(served: list[ServedModel], address: Address) -> ServedModel:
    models = [model for model in served if model.parent is None]  # adapters have a parent
    names = ", ".join(excerpt(model.id) for model in models[:20])
    if address.model is not None:
        for model in served:
            if model.id == address.model:
                return model
        raise InputError(
            f"{address.host} serves no model {address.model!r}",
            hint=f"it serves: {names or 'none'}",
        )
    if not models:
        raise EngineError(f"{address.host} serves no model")
    if len(models) > 1:
        raise InputError(
            f"{address.host} serves {len(models)} models: {names}",
            hint=f"name one behind the address: {address.base_url}#{excerpt(models[0].id)}",
        )
    return models[0]


async def _form(session: Session, model: str) -> tuple[RequestForm, bool]:
    """Find the richest form that the server answers, and whether it tells tokens' numbers.

    Raises:
        openai.APIStatusError: it answers none; this is why it refused the first.
    """
    refusal: openai.APIStatusError | None = None
    for takes_system, takes_extras in product((True, False), repeat=2):
        form = RequestForm(model=model, takes_extras=takes_extras, takes_system=takes_system)
        try:
            opening = form.opening("Be brief.", "Hello")
            reply = await say(session, form, opening, Sampling(max_new_tokens=2))
        except openai.APIStatusError as error:
            if error.status_code not in (400, 422):
                raise
            refusal = refusal or error
        else:
            return form, reply.num_tokens > 0 and reply.has_ids
    assert refusal is not None  # noqa: S101 - every round returns, raises or is refused
    raise refusal


async def _tells_logprobs(session: Session, form: RequestForm) -> bool:
    capture = Capture(logprobs=1)
    sampling = Sampling(max_new_tokens=2)
    try:
        reply = await say(session, form, form.opening("", "Hello"), sampling, capture=capture)
        return reply.num_tokens > 0 and reply.logprobs() is not None
    except (openai.APIStatusError, StreamDiedError, EngineError):
        return False


async def _routing_style(
    session: Session, form: RequestForm, shape: RouterShape | None
) -> RoutingStyle | None:
    """Ask for routed experts in both ways; what comes must fit the model's shape."""
    styles: tuple[RoutingStyle, ...] = ("sglang", "vllm")
    for style in styles if shape is not None and form.takes_extras else ():
        sampling = Sampling(max_new_tokens=3)
        fields = routing_fields(style, 0)
        try:
            reply = await say(session, form, form.opening("", "Hello"), sampling, fields=fields)
        except (openai.APIStatusError, StreamDiedError, EngineError):
            continue
        if reply.routed_experts is not None and shape is not None:
            read_routing(reply.routed_experts, style, shape, num_tokens=reply.num_tokens)
            return style
    return None


async def _holds_json(session: Session, form: RequestForm) -> bool:
    wanted = json.dumps(_PROBE_JSON, separators=(",", ":"))
    try:
        reply = await say(
            session,
            form,
            form.opening("", "Say hello in French."),
            Sampling(max_new_tokens=32),
            json_schema=_PROBE_SCHEMA,
        )
    except (openai.APIStatusError, StreamDiedError, EngineError):
        return False
    said = "".join(reply.text.split())
    return said == wanted or (reply.finish_reason == "length" and wanted.startswith(said[:99]))


async def _tokenizes(session: Session, form: RequestForm, address: Address) -> bool:
    try:
        value = await session.post(f"{address.root_url}/tokenize", tokenize_request(form, "veche"))
        return bool(read(TokenList, value, host=address.host).tokens)
    except (openai.APIStatusError, json.JSONDecodeError, EngineError):
        return False


async def _adapter_style(session: Session, address: Address) -> AdapterStyle | None:
    """Ask to load nothing, then what is not there.

    The first refusal says that the verb exists, the second whether it is of use.
    """
    styles: dict[AdapterStyle, str] = {"vllm": address.base_url, "sglang": address.root_url}
    nothing = {"lora_name": "veche-probe", "lora_path": "/veche-probe-of-a-missing-folder"}
    for style, base in styles.items():
        status, _ = await _refusal(session, f"{base}/load_lora_adapter", {})
        if status in (400, 422):
            _, said = await _refusal(session, f"{base}/load_lora_adapter", nothing)
            return None if "not enabled" in said else style
    return None


async def _refusal(session: Session, url: str, body: dict[str, Any]) -> tuple[int, str]:
    try:
        value = await session.post(url, body, is_retried=False)
    except openai.APIStatusError as error:
        return error.status_code, error.response.text
    except json.JSONDecodeError:
        return 200, ""
    return 200, str(value)


async def _context_tokens(session: Session, address: Address, served: ServedModel) -> int:
    if served.max_model_len is not None:
        return served.max_model_len
    for path, find in (("/props", _of_llama_server), ("/api/ps", _of_ollama)):
        try:
            found = find(await session.get(f"{address.root_url}{path}"), served.id)
        except (openai.APIStatusError, json.JSONDecodeError, EngineError):
            continue
        if found is not None:
            return found
    raise InputError(
        f"{address.host} does not tell how long a sequence {excerpt(served.id)!r} takes",
        hint="tell it: --engine-option context_tokens=8192",
    )


def _of_llama_server(value: Any, model: str) -> int | None:
    settings = value.get("default_generation_settings") if isinstance(value, dict) else None
    return _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None


def _of_ollama(value: Any, model: str) -> int | None:
    running = value.get("models") if isinstance(value, dict) else None
    for entry in running if isinstance(running, list) else []:
        if isinstance(entry, dict) and model in (entry.get("name"), entry.get("model")):
            return _positive(entry.get("context_length"))
    return None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
