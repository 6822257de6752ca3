"""Load a Hugging Face folder: safetensors only, local only, and no code but ours."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.identity import content_hash
from veche.core.errors import InputError, UnsupportedError
from veche.engines.request_limits import require_whole
from veche.surgery.loading import load_model, load_tokenizer
from veche.surgery.verification.form import free_memory
from veche.surgery.verification.weights import scaled_in_place

_UNKNOWN_BYTES = 4 << 30
"""Taken as free where nobody knows how much memory is."""
_DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that can be run.

    Attributes:
        name: the folder's name.
        model: transformers' causal language model, in evaluation mode.
        tokenizer: its tokenizer.
        end_ids: tokens that end an answer.
        context_tokens: the longest sequence that it was made for.
        folder: where it came from.
        changes: what was changed of its config on loading.
        memory_bytes: what keys and values may take.
        packing_bytes: what packed copies of the weights may take.
    """

    name: str
    model: Any
    tokenizer: Any
    end_ids: frozenset[int]
    context_tokens: int
    folder: Path
    changes: tuple[tuple[str, int], ...]
    memory_bytes: int
    packing_bytes: int = 0

    @cached_property
    def base_hash(self) -> str:
        """Of the checkpoint in its folder; the weights are read once."""
        return content_hash(self.folder)

    @cached_property
    def content_hash(self) -> str:
        """Of the checkpoint, the changes and the type it computes in."""
        told = f"{self.base_hash} {self.changes} {self.model.dtype}"
        return hashlib.sha256(told.encode()).hexdigest()


def load(
    folder: Path, *, dtype: str, device: str, top_k: int | None, memory_bytes: int | None
) -> LoadedModel:
    """Load the model in `folder`.

    Without `memory_bytes`, keys and values may take half of what is free once it is loaded. On a
    CPU, packed copies of the weights may take a quarter.

    Raises:
        CheckpointError: files are missing, damaged, pickled, or don't fit their config.json.
        InputError: `dtype`, `device`, `memory_bytes` or `top_k` is not possible.
        UnsupportedError: the model attends through a window or a recurrent state.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown", hint=f"use one of {', '.join(_DTYPES)}")
    if memory_bytes is not None:
        require_whole("memory_bytes", memory_bytes, least=1)
    target = _device(device)
    changes = {} if top_k is None else _top_k_change(folder, top_k)
    model = load_model(
        folder, changes=changes, dtype="auto" if dtype == "auto" else getattr(torch, dtype)
    )
    if top_k is not None:
        _scale_experts(model, folder, top_k)
    config = model.config
    _check_attention(config, folder)
    tokenizer = load_tokenizer(folder)
    model = model.to(target).eval()
    return LoadedModel(
        name=folder.resolve().name,
        model=model,
        tokenizer=tokenizer,
        end_ids=end_ids_of(folder, tokenizer),
        context_tokens=int(config.max_position_embeddings),
        folder=folder,
        changes=tuple(changes.items()),
        memory_bytes=_free_bytes(target) // 2 if memory_bytes is None else memory_bytes,
        packing_bytes=_free_bytes(target) // 4 if target.type == "cpu" else 0,
    )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory() or _UNKNOWN_BYTES


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        return device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"device {name!r} can't be used: {reason}", hint="use cpu") from error


def _check_attention(config: Any, folder: Path) -> None:
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if getattr(config, "sliding_window", None) is not None:
        kinds.add("sliding_attention")
    if kinds:
        raise UnsupportedError(
            f"{folder} uses {', '.join(sorted(kinds))}: its trunk can't be forked by this engine",
            hint="serve it with vLLM or SGLang",
        )


def _top_k_change(folder: Path, top_k: int) -> dict[str, int]:
    # Routers copy the number when they are made: later changes of the config do nothing.
    spec = spec_of(read_config(folder))
    if not spec.num_experts:
        raise InputError(f"top_k {top_k} was given, but {spec.model_type} has no experts")
    if not 1 <= top_k <= spec.num_experts:
        raise InputError(f"top_k {top_k} is not in 1..{spec.num_experts}, the number of experts")
    return {"num_experts_per_tok": top_k}


def _scale_experts(model: Any, folder: Path, top_k: int) -> None:
    """Keep each expert as loud as it was, where all that are chosen weigh 1/k (decision 0003)."""
    spec = spec_of(read_config(folder))
    if spec.has_equal_routing_weights:
        weights = dict(model.named_parameters())
        with torch.no_grad():
            scaled_in_place(weights, top_k / spec.num_experts_per_tok, model.dtype)


def end_ids_of(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: the config's, the tokenizer's, and generate's."""
    config = AutoConfig.for_model(**read_config(folder))
    given = [config.eos_token_id, tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        given.append(GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id)
    ids: set[int] = set()
    for value in given:
        ids.update(value if isinstance(value, list) else [value])
    return frozenset(ids - {None})
