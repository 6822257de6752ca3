"""Carry a plan out: source folder → target folder, shard by shard, resumable."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from veche import __version__
from veche.checkpoint.edit import edited
from veche.checkpoint.reader import INDEX_NAME, SINGLE_NAME, Checkpoint, open_checkpoint
from veche.checkpoint.writer import Chunks, TensorOut, write_index, write_shard
from veche.core.errors import DiskError, OutputError
from veche.core.files import PARTIAL_SUFFIX, disk_error, read_json_object, require_empty, write_json
from veche.core.progress import Advance, Progress, Silent
from veche.core.units import format_bytes
from veche.planning.plan import BuildPlan
from veche.surgery.grow import grown_tensors, require_same_base
from veche.surgery.names import PLAN_NAME

_JOURNAL_NAME = ".veche_journal.json"
_LOCK_NAME = ".veche_lock"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".pkl", ".onnx", ".h5")
_OWN = ("config.json", PLAN_NAME, INDEX_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build made.

    Attributes:
        target: the finished folder.
        shards: its safetensors files.
        num_tensors: of all shards.
        num_bytes: of all tensors.
        num_resumed_shards: shards that an earlier, interrupted build had finished.
    """

    target: str
    shards: tuple[str, ...]
    num_tensors: int
    num_bytes: int
    num_resumed_shards: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def build(
    plan: BuildPlan,
    source: Path,
    target: Path,
    *,
    resume: bool = False,
    discard_stale: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Grow the checkpoint in `source` as `plan` says, into the new folder `target`.

    The work is done in `target`.partial, which has no config.json until the end, and which becomes
    `target` by one rename; `source` is only read.

    Args:
        plan: without conflicts.
        source: a checkpoint folder whose spec is the plan's base.
        target: must not exist, or be empty.
        resume: continue an interrupted build of the same plan and source.
        discard_stale: begin anew where the interrupted build was of something else.
        progress: where to report.

    Raises:
        RecipeError: the plan cannot be built, or is for another base.
        CheckpointError: the source is damaged.
        OutputError: the target is taken, or another build is at work there.
        DiskError: the disk is full; finished shards are kept for `resume`.
    """
    plan.require_buildable()
    checkpoint = open_checkpoint(source)
    require_same_base(plan, checkpoint)
    require_empty(target, advice="choose another folder, or remove this one first")
    tensors = grown_tensors(plan, checkpoint)
    workshop = _workshop(target, _key(plan, checkpoint), resume=resume, discard_stale=discard_stale)
    with workshop as folder:
        num_resumed = _write_shards(folder, checkpoint, tensors, plan, progress or Silent())
        _write_companions(folder, checkpoint, plan, tensors)
    return BuildReport(
        target=str(target),
        shards=tuple(shard.name for shard in checkpoint.shards),
        num_tensors=len(tensors),
        num_bytes=sum(tensor.num_bytes for tensor in tensors.values()),
        num_resumed_shards=num_resumed,
    )


@contextmanager
def _workshop(target: Path, key: str, *, resume: bool, discard_stale: bool) -> Iterator[Path]:
    """Yield the folder to work in, locked; it becomes `target` when the block succeeds."""
    folder = target.with_name(target.name + PARTIAL_SUFFIX)
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK_NAME).open("w") as lock:
            _lock(lock.fileno(), folder)
            if not is_new and any(file.name != _LOCK_NAME for file in folder.iterdir()):
                _take_over(folder, key, resume=resume, discard_stale=discard_stale)
            write_json(folder / _JOURNAL_NAME, {"key": key})
            yield folder
            (folder / _JOURNAL_NAME).unlink()
            (folder / _LOCK_NAME).unlink()
            if target.is_dir():
                target.rmdir()
            folder.rename(target)
    except OSError as error:
        raise disk_error(error, target) from error


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another build is at work in {folder}", hint="wait for it, or choose another folder"
        ) from error


def _take_over(folder: Path, key: str, *, resume: bool, discard_stale: bool) -> None:
    """Continue an interrupted build, or clear what cannot be continued away."""
    if not resume:
        raise OutputError(
            f"{folder} holds an interrupted build",
            hint="continue it with --resume, or remove that folder",
        )
    journal = folder / _JOURNAL_NAME
    if journal.is_file() and read_json_object(journal).get("key") == key:
        return
    if not discard_stale:
        raise OutputError(
            f"{folder} was begun with another plan or another source",
            hint="remove that folder to begin anew",
        )
    for file in folder.iterdir():
        if file.name != _LOCK_NAME:
            file.unlink()


def _write_shards(
    folder: Path,
    checkpoint: Checkpoint,
    tensors: dict[str, TensorOut],
    plan: BuildPlan,
    progress: Progress,
) -> int:
    """Write the shards that are missing, named and cut as the source's; return how many were not.

    NOTE: a shard's name exists only when all of it is on the disk, so an existing one is complete.
    """
    todo = {shard.name: _tensors_in(shard, checkpoint, tensors) for shard in checkpoint.shards}
    done = {name for name in todo if (folder / name).is_file()}
    sizes = {name: sum(tensor.num_bytes for tensor in todo[name]) for name in todo}
    _require_space(folder, sum(size for name, size in sizes.items() if name not in done))
    metadata = {"format": "pt", "veche": __version__, "recipe": plan.recipe, "seed": str(plan.seed)}
    with progress.task("build", sum(sizes.values())) as advance:
        for name, content in todo.items():
            if name in done:
                advance(sizes[name])
            else:
                write_shard(folder / name, [_watched(t, advance) for t in content], metadata)
    return len(done)


def _tensors_in(
    shard: Path, checkpoint: Checkpoint, tensors: dict[str, TensorOut]
) -> list[TensorOut]:
    inside = [info for info in checkpoint.tensors.values() if info.file == shard]
    return [tensors[info.name] for info in sorted(inside, key=lambda info: info.start)]


def _watched(tensor: TensorOut, advance: Advance) -> TensorOut:
    def produce(original: TensorOut) -> Chunks:
        for chunk in original.produce():
            yield chunk
            advance(len(chunk))

    return replace(tensor, produce=partial(produce, tensor))


def _require_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskError(
            f"the disk is full: {folder} needs {format_bytes(num_bytes)}, "
            f"{format_bytes(free)} are free",
            hint="free some space, then run the same command again (veche build: with --resume)",
        )


def _write_companions(
    folder: Path, checkpoint: Checkpoint, plan: BuildPlan, tensors: dict[str, TensorOut]
) -> None:
    """Bring tokenizer, licence and the like, then plan, index and config.json, in that order."""
    for file in sorted(checkpoint.folder.iterdir()):
        if file.is_file() and not file.name.endswith(_WEIGHTS) and file.name not in _OWN:
            shutil.copyfile(file, folder / file.name)
    write_json(folder / PLAN_NAME, plan.as_dict())
    if [shard.name for shard in checkpoint.shards] != [SINGLE_NAME]:
        weight_map = {name: checkpoint.tensors[name].file.name for name in tensors}
        write_index(
            folder / INDEX_NAME, weight_map, sum(tensor.num_bytes for tensor in tensors.values())
        )
    write_json(folder / "config.json", edited(checkpoint.config, plan.changes))


def _key(plan: BuildPlan, checkpoint: Checkpoint) -> str:
    """Return what a build depends on, as a hash: the plan and the source's headers and dates."""
    content = {
        "plan": plan.as_dict(),
        "veche": __version__,
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in checkpoint.shards],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
