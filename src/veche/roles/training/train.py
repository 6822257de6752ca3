"""Train a role's adapter: from examples to a PEFT folder, interrupted or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.identity import content_hash
from veche.core.errors import UnsupportedError
from veche.core.files import write_json
from veche.core.peak_memory import peak_memory_bytes
from veche.core.progress import Progress, Silent
from veche.engines.chat_format import chat_format
from veche.engines.embedded.loading import end_ids_of
from veche.roles.data.example import Example
from veche.roles.role import Role
from veche.roles.training.adapter import adapter_weights, with_adapter, write_adapter
from veche.roles.training.batches import examples_of_step
from veche.roles.training.curve import EVENTS, PICTURE, Events, write_picture
from veche.roles.training.frozen_experts import use_frozen_experts
from veche.roles.training.loop import Loop
from veche.roles.training.merged import write_merged
from veche.roles.training.record import (
    RECORD_FILE,
    TrainingRecord,
    data_counts,
    data_hash_of,
    run_facts,
)
from veche.roles.training.rendering import Renderer, Tokenised, with_invocation
from veche.roles.training.settings import ChosenSettings, TrainingSettings, chosen, longest_of
from veche.roles.training.workplace import Workplace, nothing_left_of
from veche.surgery.loading import load_model, load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedAdapter:
    """A training that is done.

    Attributes:
        folder: a PEFT folder; with "merged-experts" a whole checkpoint.
        role: the role that was trained, with its invocation.
        base_hash: content hash of the model that it was trained on.
        record: as in the folder's training.json.
        is_main_process: whether it is this process that wrote it, of several.
    """

    folder: Path
    role: Role
    base_hash: str
    record: TrainingRecord
    is_main_process: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is known before the model's weights are read.

    Attributes:
        role: with its invocation.
        settings: nothing is left open.
        tokenised: what is learnt from.
        invocation_ids: tokens from which the adapter acts; empty where it acts everywhere.
    """

    role: Role
    settings: ChosenSettings
    tokenised: Tokenised
    invocation_ids: tuple[int, ...]


def prepare(
    model_folder: Path,
    examples: Sequence[Example],
    settings: TrainingSettings,
    *,
    role: Role,
    num_processes: int = 1,
) -> Preparation:
    """Tokenise the examples and compute the dials; the weights are not read.

    Raises:
        InputError: there is nothing to learn from, or a dial makes no sense for this model.
        CheckpointError: the folder has no config.json or tokenizer.
    """
    spec = spec_of(read_config(model_folder), where=str(model_folder))
    tokenizer = load_tokenizer(model_folder)
    is_invoked = settings.method == "alora"
    if is_invoked:
        role = with_invocation(role)
    renderer = Renderer(
        chat_format(tokenizer),
        role,
        end_ids=end_ids_of(model_folder, tokenizer),
        acts_everywhere=not is_invoked,
    )
    tokenised = renderer.all_of(examples, max_length=longest_of(settings, spec))
    return Preparation(
        role=role,
        settings=chosen(
            settings, spec, num_examples=len(tokenised.examples), num_processes=num_processes
        ),
        tokenised=tokenised,
        invocation_ids=renderer.invocation_ids if is_invoked else (),
    )


def train_adapter(
    model_folder: Path,
    examples: Sequence[Example],
    settings: TrainingSettings,
    out: Path,
    *,
    role: Role,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainedAdapter:
    """Train an adapter of `role` on a model, and write it to the new folder `out`.

    In one process of several (torchrun, accelerate launch) each calls it with the same arguments.

    Args:
        model_folder: the base model; only read.
        examples: what is learnt: of each the last turn, the assistant's.
        settings: the dials.
        out: must not hold anything. Until the training is whole, it is in OUT.partial.
        role: whose invocation and prompt stand before each answer.
        resume: whether a training in OUT.partial goes on.
        progress: who watches.

    Raises:
        InputError: data, dials or an earlier training do not fit; the message says which.
        FailureError: the loss is not a number; the last checkpoint is kept.
        DiskError: the disk is full or refuses; the last checkpoint is kept.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    told = (progress or Silent()) if accelerator.is_main_process else Silent()
    ready = prepare(
        model_folder, examples, settings, role=role, num_processes=accelerator.num_processes
    )
    _tell_left_out(ready, told)
    base_hash = content_hash(model_folder, progress=told)
    run = _facts(ready, model_folder, base_hash, data_hash_of(examples))
    place = Workplace(out)
    if accelerator.is_main_process:  # the others wait, and see what it has made
        place.open(run, resume=resume)
    accelerator.wait_for_everyone()
    with nothing_left_of(place):
        is_divided = _is_divided(accelerator, ready.settings)
        model = model_with_adapter(model_folder, ready.settings, is_divided=is_divided)
        loop = Loop(model, ready.tokenised.examples, ready.settings, accelerator, place.checkpoints)
        _run(loop, place, accelerator, told)
        weights = adapter_weights(model)
        record = _record(loop, ready, run, accelerator)
        if accelerator.is_main_process:
            _write(place, model, weights, record, ready, model_folder)
            place.finish()
        accelerator.wait_for_everyone()
    return TrainedAdapter(
        folder=out,
        role=ready.role,
        base_hash=base_hash,
        record=record,
        is_main_process=accelerator.is_main_process,
    )


def _facts(ready: Preparation, model: Path, base_hash: str, data_hash: str) -> dict[str, Any]:
    return run_facts(
        ready.role,
        ready.settings,
        base=model.resolve().name,
        base_hash=base_hash,
        data_hash=data_hash,
        invocation_ids=ready.invocation_ids,
    )


def _tell_left_out(ready: Preparation, progress: Progress) -> None:
    count = ready.tokenised.num_too_long
    if count:
        progress.say(
            f"{count} of {count + len(ready.tokenised.examples)} examples have more than "
            f"{ready.settings.max_length} tokens and are left out"
        )


def _is_divided(accelerator: Accelerator, settings: ChosenSettings) -> bool:
    """Return whether processes each hold a part of every layer."""
    is_divided = accelerator.distributed_type is DistributedType.FSDP
    if is_divided and settings.optimizer == "loft":
        raise UnsupportedError(
            "loft needs each factor whole, and FSDP divides them among processes",
            hint="use torchrun without accelerate's config, or --optimizer adamw",
        )
    return is_divided


def model_with_adapter(folder: Path, settings: ChosenSettings, *, is_divided: bool = False) -> Any:
    """Return the model of a folder with a new adapter, as PEFT's model.

    Args:
        folder: of the base model.
        settings: of the adapter.
        is_divided: whether processes will each hold a part of every layer.

    Raises:
        CheckpointError: the folder can't be loaded.
    """
    dtype: Any = "auto" if settings.dtype == "auto" else getattr(torch, settings.dtype)
    model = load_model(folder, dtype=dtype)
    if settings.method != "merged-experts" and not is_divided:
        use_frozen_experts(model)
    wrapped = with_adapter(model, settings)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    return wrapped


def checkpoint_layers(model: Any) -> None:
    """Let layers be computed again in the backward pass; nothing else behaves as in training.

    transformers does so in training mode only, in which some models also draw random numbers.
    """
    again = partial(checkpoint, use_reentrant=False)
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = module.training = True
            module._gradient_checkpointing_func = again  # noqa: SLF001 - no public name in all 5.x


def _run(loop: Loop, place: Workplace, accelerator: Accelerator, progress: Progress) -> None:
    if not accelerator.is_main_process:
        loop.run(Silent(), None)
        return
    events = Events(place.folder / EVENTS, first_step=loop.step + 1 if loop.step else 0)
    try:
        loop.run(progress, events)
    finally:
        events.close()


def _record(
    loop: Loop, ready: Preparation, run: dict[str, Any], accelerator: Accelerator
) -> TrainingRecord:
    settings, examples = ready.settings, ready.tokenised.examples
    seen = [
        examples[number]
        for step in range(settings.num_steps)
        for number in examples_of_step(
            step, num_examples=len(examples), batch=settings.batch, seed=settings.seed
        )
    ]
    return TrainingRecord(
        run=run,
        data=data_counts(ready.tokenised),
        reasons=settings.reasons,
        num_trained=sum(w.numel() for w in loop.model.parameters() if w.requires_grad),
        num_processes=accelerator.num_processes,
        seconds=loop.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        curve=loop.curve,
        tokens_seen=sum(example.num_tokens for example in seen),
        loss_tokens_seen=sum(example.num_loss for example in seen),
    )


def _write(
    place: Workplace,
    model: Any,
    weights: dict[str, torch.Tensor],
    record: TrainingRecord,
    ready: Preparation,
    base: Path,
) -> None:
    if ready.settings.method == "merged-experts":
        write_merged(place.folder, model, base)
    else:
        write_adapter(
            place.folder,
            model,
            weights,
            base=base.resolve().name,
            invocation_ids=ready.invocation_ids,
        )
    write_json(place.folder / RECORD_FILE, record.as_dict())
    write_picture(
        place.folder / PICTURE,
        record.curve["loss"],
        record.curve["learning_rate"],
        f"{ready.role.name}: {ready.settings.method}, {ready.settings.optimizer}",
    )
