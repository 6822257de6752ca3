"""Write many shards with a few threads: any thread, any tensor."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from veche.checkpoint.writer import ShardFile, TensorOut
from veche.core.errors import FailureError
from veche.core.files import sha256_of
from veche.core.progress import Advance
from veche.surgery.hub_cache import told_sha256

_AHEAD = 4
"""Tensors in the queue for each worker, so that none waits for the next."""
_PATIENCE_S = 0.2
"""How often progress is reported while a large tensor is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """A shard to be made.

    Attributes:
        path: the file to make.
        source: the file that it is made of.
        tensors: what it holds, in order.
        metadata: text for its header.
    """

    path: Path
    source: Path
    tensors: tuple[TensorOut, ...]
    metadata: Mapping[str, str]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHashes:
    """SHA-256 of a shard and of the file that it was made of, as lower-case hex."""

    path: str
    source: str


def write_shards(
    jobs: Sequence[ShardJob], *, num_workers: int, advance: Advance
) -> dict[str, ShardHashes]:
    """Write shards, those that are there already left out, and hash them and their sources.

    A source in the hub's cache is not hashed: its name there is its hash.

    numpy and the operating system work without Python's lock, so threads are enough, and memory
    stays at a few chunks for each.

    Args:
        jobs: the shards, in order.
        num_workers: threads that make tensors.
        advance: called with bytes as they are written.

    Returns:
        hashes by the shard's name.

    Raises:
        OSError: the disk is full or refuses; finished shards stay.
    """
    with ExitStack() as stack:
        closer = stack.enter_context(ThreadPoolExecutor(1))
        pool = stack.enter_context(ThreadPoolExecutor(num_workers))
        run = _Run(pool, closer, num_workers, advance)
        try:
            return run.write(jobs)
        except BaseException:
            run.stop()
            raise


class _StoppedError(Exception):
    """Another thread failed, or the user interrupted."""


class _Run:
    """One call of write_shards: the main thread opens files, counts, and decides what is next."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        closer: ThreadPoolExecutor,
        num_workers: int,
        advance: Advance,
    ) -> None:
        self._pool, self._closer = pool, closer
        self._advance, self._limit = advance, _AHEAD * num_workers
        self._stopping = threading.Event()
        self._written: deque[int] = deque()
        self._pending: dict[Future[Any], Callable[[Any], None]] = {}
        self._open: list[ShardFile] = []
        self._hashes: dict[Path, str] = {}

    def write(self, jobs: Sequence[ShardJob]) -> dict[str, ShardHashes]:
        """Write all of `jobs`."""
        for job in jobs:
            if job.path.is_file():
                self._advance(job.num_bytes)
                self._hash(job)
            else:
                self._write_one(job)
        while self._pending:
            self._collect()
        return {
            job.path.name: ShardHashes(path=self._hashes[job.path], source=self._hashes[job.source])
            for job in jobs
        }

    def stop(self) -> None:
        """Let running threads end at their next chunk, and remove what is half-written."""
        self._stopping.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._closer.shutdown(wait=True, cancel_futures=True)
        for shard in self._open:
            shard.abandon()

    def _write_one(self, job: ShardJob) -> None:
        shard = ShardFile(job.path, job.tensors, job.metadata)
        self._open.append(shard)
        left = len(job.tensors)

        def count(_: None) -> None:
            nonlocal left
            left -= 1
            if not left:
                self._submit(self._closer, shard.finish, then=lambda _: close())

        def close() -> None:
            self._open.remove(shard)
            self._hash(job)

        for index in range(len(job.tensors)):
            while len(self._pending) >= self._limit:
                self._collect()
            self._submit(self._pool, shard.write, index, self._note, then=count)

    def _hash(self, job: ShardJob) -> None:
        if (told := told_sha256(job.source)) is not None:
            self._hashes[job.source] = told
        for path in (job.path, job.source):
            if path not in self._hashes:
                self._submit(
                    self._pool, sha256_of, path, then=partial(self._hashes.__setitem__, path)
                )

    def _submit(
        self, pool: Executor, work: Callable[..., Any], *inputs: Any, then: Callable[[Any], None]
    ) -> None:
        try:
            self._pending[pool.submit(work, *inputs)] = then
        except RuntimeError as error:
            raise FailureError(
                f"the system refuses a thread: {error}", hint="take fewer: veche build --workers 1"
            ) from error

    def _note(self, num_bytes: int) -> None:
        """Count bytes; called by the threads that write them."""
        self._written.append(num_bytes)
        if self._stopping.is_set():
            raise _StoppedError

    def _collect(self) -> None:
        """Wait for something to be done, report progress, and begin what follows from it."""
        done, _ = wait(self._pending, timeout=_PATIENCE_S, return_when=FIRST_COMPLETED)
        while self._written:
            self._advance(self._written.popleft())
        for future in done:
            self._pending.pop(future)(future.result())
