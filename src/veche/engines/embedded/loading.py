"""Load a Hugging Face folder: safetensors only, local only, and no code but ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from veche.core.errors import CheckpointError, InputError, UnsupportedError
from veche.core.files import read_json_object

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
    _check_files(folder)
    if dtype not in _DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown", hint=f"use one of {', '.join(_DTYPES)}")
    target = _device(device)
    with _quiet(), _as_checkpoint_errors(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _check_attention(config, folder)
        if top_k is not None:
            _set_top_k(config, top_k)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} tensors that its config.json asks for, "
            f"first {missing[0]}",
            hint="build or download the checkpoint again",
        )
    return LoadedModel(
        name=folder.resolve().name,
        model=model.to(target).eval(),
        tokenizer=tokenizer,
        end_ids=_end_ids(folder, config, tokenizer),
        context_tokens=int(config.max_position_embeddings),
    )


def _check_files(folder: Path) -> None:
    read_json_object(folder / "config.json")
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise CheckpointError(
            f"{folder} holds pickled weights, which can run code when they are loaded",
            hint="convert them to safetensors first",
        )
    raise CheckpointError(f"{folder} holds no *.safetensors file", hint="check the path")


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


def _set_top_k(config: Any, top_k: int) -> None:
    # Routers copy the number when they are made: later changes of the config do nothing.
    if not hasattr(config, "num_experts_per_tok"):
        raise InputError(f"top_k {top_k} was given, but {config.model_type} has no experts")
    num_experts = getattr(config, "num_experts", None) or config.num_local_experts
    if not 1 <= top_k <= num_experts:
        raise InputError(f"top_k {top_k} is not in 1..{num_experts}, the number of experts")
    config.num_experts_per_tok = top_k


def _end_ids(folder: Path, config: Any, tokenizer: Any) -> frozenset[int]:
    given = [config.eos_token_id, tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        given.append(GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id)
    ids: set[int] = set()
    for value in given:
        ids.update(value if isinstance(value, list) else [value])
    return frozenset(ids - {None})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bar and load report off the terminal: we check the report."""
    had_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


@contextmanager
def _as_checkpoint_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{folder} can't be loaded: {reason[0]}",
            hint="build or download the checkpoint again",
        ) from error
