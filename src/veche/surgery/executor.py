"""Where a build's shards are made: threads of this process, or tasks on a cluster."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from veche.core.errors import InputError
from veche.core.progress import Advance
from veche.planning.plan import BuildPlan
from veche.surgery.shards import ShardHashes, ShardJob, write_shards

EXECUTORS = ("local", "ray")
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardWork:
    """The shards of one build.

    Attributes:
        plan: what is carried out.
        source: the checkpoint folder.
        folder: the workshop in which the shards are to appear.
        key: of the workshop's journal.
        jobs: one for each shard; those that are in the folder already need only be hashed.
    """

    plan: BuildPlan
    source: Path
    folder: Path
    key: str
    jobs: tuple[ShardJob, ...]


class Executor(Protocol):
    """Makes shards; all executors leave the same bytes."""

    def write(
        self, work: ShardWork, *, num_workers: int | None, advance: Advance
    ) -> dict[str, ShardHashes]:
        """Write the missing shards, and return the hashes of all by name.

        A shard gets its name when all of it is on the disk. On an error, and when interrupted,
        finished shards stay, and nobody is at work when this returns.
        """


class LocalExecutor:
    """Threads of this process."""

    def write(
        self, work: ShardWork, *, num_workers: int | None, advance: Advance
    ) -> dict[str, ShardHashes]:
        """Write with `num_workers` threads; by default the processors, at most 4."""
        num_workers = num_workers or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        return write_shards(work.jobs, num_workers=num_workers, advance=advance)


def executor_named(name: str, *, ray_address: str | None = None) -> Executor:
    """Return an executor by its name on the command line.

    Raises:
        InputError: there is none of this name, or the address is not for it.
        MissingExtraError: its package is not installed.
    """
    if name not in EXECUTORS:
        raise InputError(
            f"there is no executor {name!r}", hint=f"--executor takes: {', '.join(EXECUTORS)}"
        )
    if name == "ray":
        from veche.surgery.ray_executor import RayExecutor

        return RayExecutor(address=ray_address)
    if ray_address is not None:
        raise InputError(
            f"--ray-address {ray_address} is given, but not --executor ray",
            hint="add --executor ray, or leave the address out",
        )
    return LocalExecutor()
