"""Find the embedded engine, or say which package it lacks."""

from importlib.util import find_spec
from pathlib import Path

from veche.core.errors import InputError, MissingExtraError
from veche.engines.protocol import Engine

_NEEDED = ("torch", "transformers", "safetensors", "jinja2")


def create(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    top_k: int | None = None,
    memory_bytes: int | None = None,
) -> Engine:
    """Load a Hugging Face folder into this process.

    Args:
        model: a folder with config.json, a tokenizer and safetensors files.
        dtype: "auto" is the checkpoint's own; else "float32", "bfloat16", "float16" or
            "float64".
        device: "auto" is the first CUDA GPU if there is one, else the CPU; else torch's name.
        top_k: active experts a token, in place of the checkpoint's.
        memory_bytes: the most that keys and values may take; None is half of what is free.

    Raises:
        MissingExtraError: torch, transformers, safetensors or jinja2 is not installed.
        CheckpointError: the folder can't be loaded as it is.
        InputError: `dtype`, `device` or `top_k` is not possible.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package, "model")
    _require_a_folder(str(model))
    from veche.engines.embedded.engine import EmbeddedEngine
    from veche.engines.embedded.loading import load

    return EmbeddedEngine(
        load(Path(model), dtype=dtype, device=device, top_k=top_k, memory_bytes=memory_bytes)
    )


def _require_a_folder(model: str) -> None:
    """Say which engine would take an address or a GGUF file."""
    if model.startswith(("http://", "https://")):
        raise InputError(f"{model} is an address, not a folder", hint="add --engine openai")
    if model.lower().endswith(".gguf") and not Path(model).is_dir():
        raise InputError(f"{model} is a GGUF file, not a folder", hint="add --engine llamacpp")
