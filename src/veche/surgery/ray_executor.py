"""Make shards as Ray tasks, on a cluster whose machines share a file system."""

import logging
import os
import re
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from veche.core.errors import ClusterError, InputError, VecheError
from veche.core.extras import require_extra
from veche.core.files import remove_partials
from veche.core.progress import Advance
from veche.surgery.executor import ShardWork
from veche.surgery.shard_order import ShardOrder, carry_out
from veche.surgery.shards import ShardHashes, ShardJob

_MAX_RETRIES = 5
"""How often a shard is begun anew after its worker, or the machine it is on, died."""
_PATIENCE_S = 0.5
_GREETING_S = 10.0
_FAREWELL_S = 30.0
"""How long cancelled tasks may take to be gone."""
_OBJECT_STORE_BYTES = 80 << 20
"""Of a cluster that is started here; Ray's least, since no tensor passes through it."""

_NO_MODULE = re.compile(r"No module named '[^']+'")
"""Ray wraps an ImportError on a worker in several ways, all with its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayExecutor:
    """Ray tasks, one for each shard.

    Attributes:
        address: of the cluster, as `ray.init` takes it; None for $RAY_ADDRESS or, without that,
            for worker processes on this machine, which end with the build.
    """

    address: str | None = None

    def __post_init__(self) -> None:
        """Refuse where Ray is not installed, or nobody listens at the address.

        Raises:
            MissingExtraError: names the extra.
            InputError: names the address.
        """
        require_extra("ray")
        _require_listener(_resolved(self.address))

    def write(
        self, work: ShardWork, *, num_workers: int | None, advance: Advance
    ) -> dict[str, ShardHashes]:
        """Write with `num_workers` tasks at a time; by default one for each CPU of the cluster.

        Raises:
            InputError: there is no cluster at the address.
            ClusterError: a worker died again and again, or does not see the files.
            VecheError: what failed in a task, as a build here would say it.
        """
        with _cluster(self.address, num_workers) as ray:
            try:
                limit = num_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
                return _Run(ray, work, limit, advance).write()
            finally:
                # Killed workers leave what they had begun; nobody is at work any more.
                remove_partials(work.folder)


class _Run:
    """One call of RayExecutor.write."""

    def __init__(self, ray: ModuleType, work: ShardWork, limit: int, advance: Advance) -> None:
        self._ray, self._work, self._limit, self._advance = ray, work, limit, advance
        options = {"num_cpus": 1, "max_retries": _MAX_RETRIES}
        self._task = ray.remote(_attempt).options(**options)
        self._running: dict[Any, ShardJob] = {}
        self._plan = ray.put(work.plan.as_dict())

    def write(self) -> dict[str, ShardHashes]:
        """Make all shards, and let nothing run on when one fails or the user interrupts."""
        waiting, hashes = deque(self._work.jobs), dict[str, ShardHashes]()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._limit:
                    self._begin(waiting.popleft())
                done, _ = self._ray.wait(list(self._running), timeout=_PATIENCE_S)
                for reference in done:
                    job = self._running.pop(reference)
                    hashes[job.path.name] = self._result(reference, job)
                    self._advance(job.num_bytes)
        except BaseException:
            self._cancel()
            raise
        return {job.path.name: hashes[job.path.name] for job in self._work.jobs}

    def _begin(self, job: ShardJob) -> None:
        order = ShardOrder(
            source=job.source.parent.absolute(),
            folder=self._work.folder.absolute(),
            key=self._work.key,
            shard=job.path.name,
            source_bytes=job.source.stat().st_size,
        )
        self._running[self._task.remote(self._plan, order)] = job

    def _result(self, reference: Any, job: ShardJob) -> ShardHashes:
        errors = self._ray.exceptions
        try:
            result: ShardHashes | VecheError = self._ray.get(reference)
        except errors.RayTaskError as error:
            missing = _NO_MODULE.search(str(error))
            if missing is None:
                raise  # a defect of veche: its traceback says more than any sentence
            raise ClusterError(
                f"a Ray worker cannot load veche: {missing[0]}",
                hint="install on every machine what is installed here: pip install 'veche[ray]'",
            ) from error
        except errors.RayError as error:
            raise ClusterError(
                f"Ray gave {job.path.name} up: {str(error).strip().splitlines()[0]}",
                hint="finished shards are kept: run the same command again, with --resume",
            ) from error
        if isinstance(result, VecheError):
            raise result
        return result

    def _cancel(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        if self._running:
            everything = list(self._running)
            self._ray.wait(everything, num_returns=len(everything), timeout=_FAREWELL_S)


def _attempt(plan_json: dict[str, Any], order: ShardOrder) -> ShardHashes | VecheError:
    """Make a shard on a worker; an error is a result, so that Ray neither wraps nor logs it."""
    try:
        return carry_out(plan_json, order)
    except VecheError as error:
        return error


@contextmanager
def _cluster(address: str | None, num_workers: int | None) -> Iterator[ModuleType]:
    """Yield ray, connected; a connection that was there before stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = _resolved(address)
    own = {"num_cpus": num_workers, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address == "local" else {}),
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _unusable(address, reason[0]) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _resolved(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _require_listener(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # a word, such as auto, which Ray knows or refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_GREETING_S).close()
    except (OSError, OverflowError) as error:
        raise _unusable(address, f"{host} does not answer at port {port} ({error})") from error


def _unusable(address: str, reason: str) -> InputError:
    return InputError(
        f"no Ray cluster can be used at {address!r}: {reason}",
        hint="ray status shows a cluster's address; without one, leave --ray-address out",
    )
