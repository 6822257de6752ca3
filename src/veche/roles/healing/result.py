"""Write the healed checkpoint: the student's files, with the values that moved. Imports torch."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from veche import __version__
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import INDEX_NAME, SINGLE_NAME, Checkpoint
from veche.checkpoint.writer import Chunks, TensorOut, copied, write_index
from veche.core.errors import FailureError
from veche.core.files import sha256_of, write_json, write_text
from veche.core.json_text import json_text
from veche.core.progress import Progress
from veche.roles.healing.lesson import Lesson
from veche.surgery.companions import companions_of, copy_companion
from veche.surgery.loading import Model
from veche.surgery.model_card import carried_header
from veche.surgery.names import (
    CARD_NAME,
    GROWTH_NAME,
    HASHES_NAME,
    HEAL_NAME,
    PLAN_NAME,
    SOURCE_CARD_NAME,
)
from veche.surgery.shards import ShardHashes, ShardJob, write_shards
from veche.surgery.verification.weights import place_of

_STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_WORKERS = 2
_LINEAGE = (GROWTH_NAME, PLAN_NAME)
"""What still holds of a healed model: which parts are new, and how it was built."""
_CHUNK_ROWS = 1024


def write_weights(
    folder: Path,
    checkpoint: Checkpoint,
    model: Model,
    changed: Collection[str],
    progress: Progress,
) -> dict[str, ShardHashes]:
    """Write shards as the student's are cut; what did not move is copied byte for byte.

    Args:
        folder: where to.
        checkpoint: the student's files.
        model: the healed model, adapters merged.
        changed: names of the parameters that may differ.
        progress: told of bytes.

    Raises:
        FailureError: a value is not a number.
        OSError: the disk is full or refuses.
    """
    parameters = dict(model.named_parameters())
    jobs = [
        ShardJob(
            path=folder / shard.name,
            source=shard,
            tensors=tuple(
                _tensor(info, checkpoint, parameters, changed)
                for info in sorted(checkpoint.tensors.values(), key=lambda info: info.start)
                if info.file == shard
            ),
            metadata={"format": "pt", "veche": __version__, "healed": "veche heal"},
        )
        for shard in checkpoint.shards
    ]
    with progress.task("write", sum(job.num_bytes for job in jobs)) as advance:
        hashes = write_shards(jobs, num_workers=_WORKERS, advance=advance)
    if [job.path.name for job in jobs] != [SINGLE_NAME]:
        weight_map = {tensor.name: job.path.name for job in jobs for tensor in job.tensors}
        write_index(folder / INDEX_NAME, weight_map, sum(job.num_bytes for job in jobs))
    return hashes


def write_companions(folder: Path, checkpoint: Checkpoint, lesson: Lesson) -> None:
    """Bring along what is beside the weights, and then config.json with its dials.

    Raises:
        OSError: the disk is full or refuses.
    """
    for file in companions_of(checkpoint.folder):
        name = SOURCE_CARD_NAME if file.name == CARD_NAME else file.name
        copy_companion(file, folder / name)
    for name in _LINEAGE:
        if (checkpoint.folder / name).is_file():
            copy_companion(checkpoint.folder / name, folder / name)
    write_text(folder / "config.json", json_text(lesson.config))


def write_provenance(
    folder: Path,
    checkpoint: Checkpoint,
    shards: Mapping[str, ShardHashes],
    record: Mapping[str, Any],
) -> None:
    """Write the record of the healing, the card, and what `veche verify --hashes` looks at."""
    write_json(folder / HEAL_NAME, dict(record))
    write_text(folder / CARD_NAME, card(checkpoint.folder, record))
    files = {
        file.name: shards[file.name].path if file.name in shards else sha256_of(file)
        for file in sorted(folder.iterdir())
        if file.is_file()
        and not file.name.startswith(".")
        and file.name not in (CARD_NAME, HASHES_NAME)
    }
    sources = {name: pair.source for name, pair in sorted(shards.items())}
    sources["config.json"] = sha256_of(checkpoint.folder / "config.json")
    write_json(folder / HASHES_NAME, {"schema": 1, "source": sources, "files": files})


def card(student: Path, record: Mapping[str, Any]) -> str:
    """Return the healed model's card."""
    header = {
        **carried_header(student),
        "library_name": "transformers",
        "tags": ["veche", "moe", "distillation"],
    }
    recovery = record["recovery"]
    rows = [
        ("NLL above the source, before", recovery["lost"], recovery["lost_interval"]),
        ("NLL above the source, healed", recovery["left"], recovery["left_interval"]),
        ("share of the loss recovered", recovery["recovered"], recovery["recovered_interval"]),
        ("KL(source‖model), before", recovery["kl_before"], recovery["kl_before_interval"]),
        ("KL(source‖model), healed", recovery["kl_after"], recovery["kl_after_interval"]),
    ]
    table = [_row(*row) for row in rows]
    dials = ", ".join(f"`{name}` {value:g}" for name, value in record["dials"].items())
    student_name, teacher_name = (Path(str(record[key])).name for key in ("student", "teacher"))
    made = (
        f"Made by veche {__version__}: the model `{student_name}`"
        f"{f' with {dials}' if dials else ''}, distilled towards `{teacher_name}` in "
        f"{record['num_steps']} steps. Trained: {', '.join(record['parts'])}."
    )
    measured = (
        f"Measured on {record['heldout_windows']} held-out windows, NLL and KL in nats a token, "
        "95 % intervals:"
    )
    files = (
        f"`{HEAL_NAME}` is the record, `{HASHES_NAME}` has SHA-256 of the files. Licence and "
        "tokenizer are the source's."
    )
    paragraphs = [
        f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---",
        f"# {student_name}, healed",
        made,
        measured,
        "\n".join(["| figure | mean | interval |", "|---|---|---|", *table]),
        files,
    ]
    return "\n\n".join(paragraphs) + "\n"


def _row(name: str, mean: float | None, interval: Sequence[float | None] | None) -> str:
    if mean is None or interval is None:
        return f"| {name} | – | – |"
    low, high = interval
    return f"| {name} | {mean:.3f} | {low:.3f} … {high:.3f} |"


def _tensor(
    info: TensorInfo,
    checkpoint: Checkpoint,
    parameters: Mapping[str, Tensor],
    changed: Collection[str],
) -> TensorOut:
    place = place_of(info.name, checkpoint.spec.family)
    if place is None or place.parameter not in changed:
        return copied(info)
    value = place.inside(parameters[place.parameter].detach())
    return TensorOut(
        name=info.name,
        dtype=info.dtype,
        shape=info.shape,
        produce=partial(_bytes_of, value, info),
    )


def _bytes_of(value: Tensor, info: TensorInfo) -> Chunks:
    """Yield a tensor's bytes in its file's type, some rows at a time."""
    yield from _chunks(value.reshape(-1, value.shape[-1]), info)


def _chunks(rows: Tensor, info: TensorInfo) -> Iterator[memoryview]:
    for part in torch.split(rows, _CHUNK_ROWS):
        stored = part.to("cpu", _STORED[info.dtype]).contiguous()
        if not stored.isfinite().all():
            raise FailureError(
                f"{info.name} has values that are not numbers in {info.dtype}",
                hint="train with lower rates, e.g. --learning-rate 1e-4 --experts-rate 1e-5",
            )
        yield stored.view(torch.uint8).numpy().reshape(-1).data
