"""Load a checkpoint folder into transformers, with chosen dials. This file imports torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.edit import edited
from veche.checkpoint.header import read_header
from veche.checkpoint.reader import shards_of
from veche.core.errors import CheckpointError

Attention = Literal["sdpa", "eager"]
_MOST_UNSTORED = 2
"""A tied embedding may be stored once for two; a model of more than twice its files is another."""
_ALIGNED_VALUES = 8
"""Of bfloat16, in 16 bytes."""
_LOADING_ERRORS = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError,
)  # fmt: skip
"""What transformers and its kin raise over a folder; the last is of a config that denies itself."""
Model = Any
"""transformers' PreTrainedModel; its generated classes carry no useful types."""


def load_model(
    folder: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    dtype: torch.dtype | Literal["auto"] = "auto",
    attention: Attention = "sdpa",
) -> Model:
    """Load the model in `folder`, in evaluation mode, with no router logits to add up.

    Args:
        folder: a checkpoint folder: safetensors, local, no code of its own.
        changes: ModelSpec fields to change before loading, e.g. {"num_experts_per_tok": 12};
            changed after loading, several of them would do nothing.
        dtype: to compute in; "auto" is the checkpoint's.
        attention: transformers' attention implementation.

    Raises:
        CheckpointError: files are missing, damaged or pickled; a tensor is missing, left over, or
            of a wrong shape.
    """
    read_config(folder)  # its errors come before those of the weights
    headers = [read_header(file) for file in shards_of(folder)]
    num_stored = sum(info.num_elements for header in headers for info in header.values())
    with quiet_transformers(), _as_checkpoint_errors(folder):
        config = _config_of(folder, changes)
        choices = {"attn_implementation": attention, **_experts_choice(config)}
        _require_as_large_as_files(folder, _empty(config, choices), num_stored)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **choices,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, report[kind])):
            raise CheckpointError(
                f"{folder}: {len(keys)} {kind.replace('_', ' ')}, first {keys[0]}",
                hint="the weights and config.json are not of one model: build it again",
            )
    return model.eval()


def empty_model(
    folder: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    attention: Attention = "sdpa",
) -> Model:
    """Return the model of `folder` on the meta device: its modules and config, and no weights.

    Args:
        folder: a checkpoint folder, whose config.json alone is read.
        changes: as in `load_model`.
        attention: transformers' attention implementation.

    Raises:
        CheckpointError: transformers cannot make a model of its config.json.
    """
    with quiet_transformers(), _as_checkpoint_errors(folder):
        config = _config_of(folder, changes)
        choices = {"attn_implementation": attention, **_experts_choice(config)}
        return _empty(config, choices).eval()


def _config_of(folder: Path, changes: Mapping[str, Any] | None) -> Any:
    raw = read_config(folder)
    config = AutoConfig.for_model(**(edited(raw, dict(changes)) if changes else raw))
    # Its only effect here would be transformers' auxiliary loss, which a fork of the cache
    # makes fail: the routers are listened to directly.
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False
    return config


def _experts_choice(config: Any) -> dict[str, str]:
    """Choose the experts' kernel: torch's grouped one takes rows of a multiple of 16 bytes only."""
    spec = spec_of(config.to_dict())
    width = spec.moe_intermediate_size or 0
    is_aligned = not (width % _ALIGNED_VALUES or spec.hidden_size % _ALIGNED_VALUES)
    return {} if is_aligned else {"experts_implementation": "eager"}


def _empty(config: Any, choices: dict[str, str]) -> Model:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **choices)


def _require_as_large_as_files(folder: Path, model: Model, num_stored: int) -> None:
    """Refuse a config.json of a far larger model before memory is taken for it."""
    num_parameters = sum(weight.numel() for weight in model.parameters())
    if num_parameters > _MOST_UNSTORED * num_stored:
        raise CheckpointError(
            f"{folder / 'config.json'} describes {num_parameters:,} parameters (hidden_size "
            f"{model.config.hidden_size}), but the files hold {num_stored:,}",
            hint="config.json and the weights are not of one model: fetch both again",
        )


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in `folder`.

    Raises:
        CheckpointError: there is none.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder of a model", hint="check the path")
    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = str(error).splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{folder} has no usable tokenizer: {said[0]}",
                hint="copy tokenizer.json and tokenizer_config.json of the base model there",
            ) from error


@contextmanager
def _as_checkpoint_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except _LOADING_ERRORS as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{folder} can't be loaded: {' '.join(line.strip() for line in reason[:2])}",
            hint="build or download the checkpoint again",
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and reports off the terminal: their content is checked here."""
    had_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()
