"""Load adapters into a running server, and forget them."""

from pathlib import Path
from typing import Any

import openai

from veche.checkpoint.identity import hash_of
from veche.core.errors import EngineError, InputError
from veche.engines.protocol import Sampling
from veche.engines.remote.address import Address
from veche.engines.remote.failures import StreamDiedError
from veche.engines.remote.probe import AdapterStyle, say
from veche.engines.remote.requests import RequestForm
from veche.engines.remote.session import Session

_FILES = ("adapter_config.json", "adapter_model.safetensors")


def content_hash(folder: Path) -> str:
    """Return the SHA-256 of a PEFT folder's configuration and weights, as every engine does.

    Raises:
        InputError: one of the two files is missing.
    """
    files = [folder / name for name in _FILES]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{folder} is no PEFT adapter: {file.name} is missing",
                hint="the folder must be seen under the same path from here and from the server",
            )
    return hash_of(files)


def adapter_model(style: AdapterStyle, form: RequestForm, name: str) -> str:
    """Return what a request calls the model with this adapter: SGLang wants base:adapter."""
    return name if style == "vllm" else f"{form.model}:{name}"


async def load(
    session: Session,
    address: Address,
    style: AdapterStyle,
    form: RequestForm,
    *,
    name: str,
    folder: Path,
) -> None:
    """Load an adapter, and let the model say a token with it.

    Raises:
        EngineError: the server refuses it, or can't answer with it; it is then unloaded.
    """
    place = {"lora_name": name, "lora_path": str(folder.resolve())}
    _require_success(await session.post(_url(address, style, "load"), place), name)
    opening = form.opening("", "Hello")
    model = adapter_model(style, form, name)
    try:
        await say(session, form, opening, Sampling(max_new_tokens=1), model=model)
    except (openai.APIError, StreamDiedError, EngineError):
        await unload(session, address, style, name)
        raise


async def unload(session: Session, address: Address, style: AdapterStyle, name: str) -> None:
    """Let the server forget an adapter."""
    value = await session.post(_url(address, style, "unload"), {"lora_name": name})
    _require_success(value, name)


def _url(address: Address, style: AdapterStyle, verb: str) -> str:
    base = address.base_url if style == "vllm" else address.root_url
    return f"{base}/{verb}_lora_adapter"


def _require_success(value: Any, name: str) -> None:
    if isinstance(value, dict) and value.get("success") is False:  # SGLang, with status 200
        raise EngineError(f"the server refuses adapter {name!r}: {value.get('error_message')}")
