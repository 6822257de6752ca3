"""Load a Hugging Face folder: safetensors only, local only, and no code but ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from veche.checkpoint.config import read_config, spec_of
from veche.core.errors import InputError, UnsupportedError
from veche.surgery.loading import load_model, load_tokenizer

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that can be run.

    Attributes:
        name: the folder's name.
        model: transformers' causal language model, in evaluation mode.
        tokenizer: its tokenizer.
        end_ids: tokens that end an answer.
        context_tokens: the longest sequence that it was made for.
    """

    name: str
    model: Any
    tokenizer: Any
    end_ids: frozenset[int]
    context_tokens: int


def load(folder: Path, *, dtype: str, device: str, top_k: int | None) -> LoadedModel:
    """Load the model in `folder`.

    Raises:
        CheckpointError: files are missing, damaged, pickled, or don't fit their config.json.
        InputError: `dtype`, `device` or `top_k` is not possible.
        UnsupportedError: the model attends through a window or a recurrent state.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown", hint=f"use one of {', '.join(_DTYPES)}")
    target = _device(device)
    changes = {} if top_k is None else _top_k_change(folder, top_k)
    model = load_model(
        folder, changes=changes, dtype="auto" if dtype == "auto" else getattr(torch, dtype)
    )
    config = model.config
    _check_attention(config, folder)
    tokenizer = load_tokenizer(folder)
    return LoadedModel(
        name=folder.resolve().name,
        model=model.to(target).eval(),
        tokenizer=tokenizer,
        end_ids=_end_ids(folder, config, tokenizer),
        context_tokens=int(config.max_position_embeddings),
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
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


def _end_ids(folder: Path, config: Any, tokenizer: Any) -> frozenset[int]:
    given = [config.eos_token_id, tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        given.append(GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id)
    ids: set[int] = set()
    for value in given:
        ids.update(value if isinstance(value, list) else [value])
    return frozenset(ids - {None})
