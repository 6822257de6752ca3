"""Carry a plan out: source folder → target folder, as a stream, by several workers, resumable."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from veche.checkpoint.reader import INDEX_NAME, SINGLE_NAME, Checkpoint, open_checkpoint
from veche.checkpoint.writer import write_index
from veche.core.errors import CheckpointError, RecipeError
from veche.core.files import require_empty, require_space, sha256_of, write_json, write_text
from veche.core.json_text import json_text
from veche.core.progress import Progress, Silent
from veche.planning.plan import BuildPlan, read_plan
from veche.surgery.companions import companions_of, copy_companion
from veche.surgery.executor import Executor, LocalExecutor, ShardWork
from veche.surgery.grow import grown_by_source, require_same_base
from veche.surgery.growth_record import growth_record
from veche.surgery.jobs import shard_jobs
from veche.surgery.model_card import model_card
from veche.surgery.names import (
    CARD_NAME,
    GROWTH_NAME,
    HASHES_NAME,
    PLAN_NAME,
    SOURCE_CARD_NAME,
)
from veche.surgery.shards import ShardHashes, ShardJob
from veche.surgery.workshop import finish_if_done, work_key, workshop


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
    num_workers: int | None = None,
    executor: Executor | None = None,
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
        num_workers: threads or tasks that are at work; by default what the executor finds good.
            The result does not depend on it.
        executor: where the shards are made; by default here.
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
    key = _key(plan, checkpoint)
    companions_of(source)
    made = grown_by_source(plan, checkpoint)
    jobs = shard_jobs(target, checkpoint, made, plan)
    num_resumed = len(jobs)
    if not (resume and (finish_if_done(target, key) or _is_built(target, plan, jobs))):
        require_empty(target, advice="choose another folder, or remove this one first")
        with workshop(target, key, resume=resume, discard_stale=discard_stale) as folder:
            jobs = tuple(replace(job, path=folder / job.path.name) for job in jobs)
            num_resumed = sum(job.path.is_file() for job in jobs)
            work = ShardWork(plan=plan, source=source, folder=folder, key=key, jobs=jobs)
            hashes = _write(work, executor or LocalExecutor(), num_workers, progress or Silent())
            _require_unchanged(checkpoint, plan, key)
            _write_companions(folder, checkpoint, plan, jobs, hashes)
    return BuildReport(
        target=str(target),
        shards=tuple(job.path.name for job in jobs),
        num_tensors=sum(len(job.tensors) for job in jobs),
        num_bytes=sum(job.num_bytes for job in jobs),
        num_resumed_shards=num_resumed,
    )


def _is_built(target: Path, plan: BuildPlan, jobs: tuple[ShardJob, ...]) -> bool:
    """Whether `target` is what this build made before: then there is nothing to resume."""
    own = (target / PLAN_NAME, target / "config.json", *(job.path for job in jobs))
    if not all(file.is_file() for file in own):
        return False
    try:
        return read_plan(target / PLAN_NAME) == plan
    except RecipeError:  # damaged: it is not known what lies there
        return False


def _write(
    work: ShardWork, executor: Executor, num_workers: int | None, progress: Progress
) -> dict[str, ShardHashes]:
    """Write the shards that are missing.

    NOTE: a shard's name exists only when all of it is on the disk, so an existing one is complete.
    """
    missing = sum(job.num_bytes for job in work.jobs if not job.path.is_file())
    require_space(
        work.folder,
        missing,
        advice="free some space, then run the same command again (veche build: with --resume)",
    )
    with progress.task("build", sum(job.num_bytes for job in work.jobs)) as advance:
        return executor.write(work, num_workers=num_workers, advance=advance)


def _require_unchanged(checkpoint: Checkpoint, plan: BuildPlan, key: str) -> None:
    """Refuse to give its name to what was made of two versions of the source."""
    if _key(plan, checkpoint) != key:
        raise CheckpointError(
            f"{checkpoint.folder} was changed while it was read, so what was made is of no use",
            hint="remove the .partial folder, and build again when nothing writes to the source",
        )


def _write_companions(
    folder: Path,
    checkpoint: Checkpoint,
    plan: BuildPlan,
    jobs: tuple[ShardJob, ...],
    hashes: Mapping[str, ShardHashes],
) -> None:
    """Bring tokenizer, licence and the like, then what veche says, then index and config.json."""
    for file in companions_of(checkpoint.folder):
        name = SOURCE_CARD_NAME if file.name == CARD_NAME else file.name
        copy_companion(file, folder / name)
    write_json(folder / PLAN_NAME, plan.as_dict())
    write_json(folder / GROWTH_NAME, growth_record(plan))
    write_text(folder / CARD_NAME, model_card(plan, checkpoint.folder))
    if [job.path.name for job in jobs] != [SINGLE_NAME]:
        weight_map = {tensor.name: job.path.name for job in jobs for tensor in job.tensors}
        write_index(folder / INDEX_NAME, weight_map, sum(job.num_bytes for job in jobs))
    config = json_text(_target_config(plan, checkpoint.config))
    _write_hashes(folder, checkpoint, hashes, config)
    write_text(folder / "config.json", config)


def _write_hashes(
    folder: Path, checkpoint: Checkpoint, hashes: Mapping[str, ShardHashes], config: str
) -> None:
    """Write what `veche verify --hashes` compares with; config.json is yet to come."""
    files = {
        file.name: hashes[file.name].path if file.name in hashes else sha256_of(file)
        for file in sorted(folder.iterdir())
        if not file.name.startswith(".") and file.name not in (CARD_NAME, HASHES_NAME)
    }
    files["config.json"] = hashlib.sha256(config.encode()).hexdigest()
    sources = {name: pair.source for name, pair in sorted(hashes.items())}
    sources["config.json"] = sha256_of(checkpoint.folder / "config.json")
    write_json(
        folder / HASHES_NAME, {"schema": 1, "source": sources, "files": dict(sorted(files.items()))}
    )


def _target_config(plan: BuildPlan, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the source's config.json with all that the plan changes, unknown keys kept."""
    before, after = plan.base_config, plan.target_config
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    kept = {key: value for key, value in source.items() if key in after or key not in before}
    return {**kept, **changed}


def _key(plan: BuildPlan, checkpoint: Checkpoint) -> str:
    """Return what a build depends on, as a hash."""
    return work_key(checkpoint, {"plan": plan.as_dict()})
