"""One shard, made from what can be sent to another machine."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veche import __version__
from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.header import read_header
from veche.checkpoint.reader import Checkpoint
from veche.core.errors import ClusterError
from veche.core.files import disk_error, read_json_object
from veche.planning.plan import plan_from_dict
from veche.surgery.grow import grown_by_source
from veche.surgery.jobs import shard_jobs
from veche.surgery.shards import ShardHashes, write_shards
from veche.surgery.workshop import JOURNAL_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrder:
    """What a worker must know to make a shard.

    Attributes:
        source: the checkpoint folder, as all machines see it.
        folder: the workshop, as all machines see it.
        key: of the workshop's journal.
        shard: the name of the source's file and of the file to make.
        source_bytes: length of the source's file.
        version: of veche; another one could make other bytes.
    """

    source: Path
    folder: Path
    key: str
    shard: str
    source_bytes: int
    version: str = __version__


def carry_out(plan_json: dict[str, Any], order: ShardOrder) -> ShardHashes:
    """Make the shard, unless it is there already, and return its hash and its source's.

    Args:
        plan_json: the plan, as JSON values.
        order: which shard of which build.

    Raises:
        ClusterError: this machine does not see the files, or has another version of veche.
        DiskError: the disk is full or refuses.
        VecheError: what a build here would say.
    """
    _require_same_version(order)
    _require_shared(order)
    plan, checkpoint = plan_from_dict(plan_json), _part(order)
    jobs = shard_jobs(order.folder, checkpoint, grown_by_source(plan, checkpoint), plan)
    try:
        made = write_shards(jobs, num_workers=1, advance=lambda _: None)
    except OSError as error:
        raise disk_error(error, order.folder / order.shard) from error
    return made[order.shard]


def _part(order: ShardOrder) -> Checkpoint:
    """Open one shard; that all shards make one model was checked before it was ordered."""
    config, shard = read_config(order.source), order.source / order.shard
    return Checkpoint(
        folder=order.source,
        config=config,
        spec=spec_of(config, where=str(order.source / "config.json")),
        tensors=read_header(shard),
        shards=(shard,),
    )


def _require_same_version(order: ShardOrder) -> None:
    if order.version != __version__:
        raise ClusterError(
            f"worker {socket.gethostname()} has veche {__version__}, this machine "
            f"{order.version}: their shards need not be the same",
            hint=f"install there: pip install 'veche[ray]=={order.version}'",
        )


def _require_shared(order: ShardOrder) -> None:
    """Refuse to work where source or workshop is not the one that was meant."""
    shard, journal = order.source / order.shard, order.folder / JOURNAL_NAME
    if not shard.is_file() or shard.stat().st_size != order.source_bytes:
        missing = shard
    elif not journal.is_file() or read_json_object(journal).get("key") != order.key:
        missing = order.folder
    else:
        return
    raise ClusterError(
        f"worker {socket.gethostname()} does not see {missing} as this machine does: source and "
        "target must be on a file system that all machines share, under the same path",
        hint="put both there; for a source or target with ://, give --staging a folder there",
    )
