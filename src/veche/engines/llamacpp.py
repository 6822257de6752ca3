"""Find the llama.cpp engine, or say which package it lacks."""

import os
from importlib.util import find_spec
from pathlib import Path

from veche.core.errors import InputError, MissingExtraError
from veche.engines.protocol import Engine

_NEEDED = ("llama_cpp", "jinja2", "llguidance")
_KV_TYPES = ("f16", "f32")
_MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ of llama.cpp."""


def create(
    model: str | Path,
    *,
    top_k: int | None = None,
    cache_tokens: int | None = None,
    max_cache_bytes: int | None = None,
    max_sequences: int = 64,
    kv_type: str = "f16",
    threads: int | None = None,
    routing: bool = True,
) -> Engine:
    """Load a GGUF file into this process, to run on its CPU.

    Args:
        model: a GGUF file of any family that llama.cpp knows and that attends to what it cached.
        top_k: active experts a token, in place of the file's.
        cache_tokens: what all trunks and branches together may hold, shared beginnings once; None
            is the model's own context, but at least 4096 and at most 16384.
        max_cache_bytes: refuse a cache that takes more; None is no limit.
        max_sequences: how many trunks and branches there may be at a time.
        kv_type: of cached keys and values: "f16", or "f32", which rounds nothing.
        threads: None is one for each core.
        routing: False listens to no router, and announces no ROUTING: llama.cpp then need not call
            Python for every node of its graph.

    Raises:
        MissingExtraError: llama-cpp-python, jinja2 or llguidance is not installed.
        CheckpointError: the file can't be loaded.
        UnsupportedError: the model's trunk can't be forked.
        InputError: an option is not possible.
        EngineError: there is no memory for the cache.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package, "llamacpp")
    if kv_type not in _KV_TYPES:
        raise InputError(f"kv_type {kv_type!r} is unknown", hint=f"use {' or '.join(_KV_TYPES)}")
    if not 2 <= max_sequences <= _MAX_SEQUENCES:
        raise InputError(f"max_sequences {max_sequences} is not in 2..{_MAX_SEQUENCES}")
    from veche.engines.llama_cpp.engine import LlamaCppEngine
    from veche.engines.llama_cpp.loading import LoadedGguf, Options

    options = Options(
        top_k=top_k,
        cache_tokens=cache_tokens,
        max_cache_bytes=max_cache_bytes,
        max_sequences=max_sequences,
        kv_type=kv_type,
        threads=threads or os.cpu_count() or 1,
        routing=routing,
    )
    return LlamaCppEngine(LoadedGguf(Path(model), options))
