"""Find the engine that asks an OpenAI-compatible server, or say which package it lacks."""

from importlib.util import find_spec
from pathlib import Path

from veche.core.errors import MissingExtraError, UnsupportedError
from veche.engines.protocol import Engine

KEY_VARIABLE = "OPENAI_API_KEY"


def create(
    model: str | Path,
    *,
    top_k: int | None = None,
    context_tokens: int | None = None,
    timeout_s: float = 600.0,
    max_retries: int = 2,
    concurrency: int = 16,
    without: str = "",
    key_variable: str = KEY_VARIABLE,
    config: Path | None = None,
) -> Engine:
    """Connect to a server, and find out by real requests what it can do.

    Args:
        model: `http://host:port/v1`, or with the model's name behind it: `…/v1#name`.
        top_k: refused, as a server's experts are chosen when it starts.
        context_tokens: the longest sequence, where the server doesn't tell.
        timeout_s: the longest silence of the server, in seconds.
        max_retries: how often a request that has brought nothing yet is sent again.
        concurrency: the most requests at once.
        without: sampling dials that the server can't do and the user can do without, by commas:
            top_k, min_p, repetition_penalty.
        key_variable: the environment variable with the API key; it is sent to this server alone.
        config: the model's folder or config.json; a server that returns routed experts leaves out
            what it takes to read them.

    Raises:
        MissingExtraError: the package openai is not installed.
        InputError: the address or an option is not possible, or the server serves several models.
        UnsupportedError: `top_k` is given.
        EngineError: the server does not answer, or not as it should.
    """
    if top_k is not None:
        raise UnsupportedError(
            "the number of experts of a running server can't be changed",
            hint="restart it: vllm serve … --hf-overrides '{\"num_experts_per_tok\": N}'",
        )
    if find_spec("openai") is None:
        raise MissingExtraError("openai", "openai")
    from veche.engines.remote.engine import RemoteEngine
    from veche.engines.remote.settings import RemoteSettings

    settings = RemoteSettings(
        context_tokens=context_tokens,
        timeout_s=timeout_s,
        max_retries=max_retries,
        concurrency=concurrency,
        without=frozenset(name.strip() for name in without.split(",") if name.strip()),
        key_variable=key_variable,
        config=config,
    )
    return RemoteEngine(str(model), settings)
