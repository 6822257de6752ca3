"""How a grown model is cut into shards."""

from collections.abc import Mapping
from pathlib import Path

from veche import __version__
from veche.checkpoint.reader import Checkpoint
from veche.checkpoint.writer import TensorOut
from veche.planning.plan import BuildPlan
from veche.surgery.shards import ShardJob


def shard_jobs(
    folder: Path,
    checkpoint: Checkpoint,
    made: Mapping[str, tuple[TensorOut, ...]],
    plan: BuildPlan,
) -> tuple[ShardJob, ...]:
    """Cut and name the shards as the source's are; what is new lies beside what it is made of.

    NOTE: a shard depends on the plan and on the source's shard of the same name alone, so that a
    checkpoint of which only one shard is known gives the same job for it.

    Args:
        folder: where the shards are to be.
        checkpoint: the source.
        made: the grown model's tensors by the source's tensor that they are made of.
        plan: what is carried out.
    """
    metadata = {"format": "pt", "veche": __version__, "recipe": plan.recipe, "seed": str(plan.seed)}
    inside: dict[Path, list[TensorOut]] = {shard: [] for shard in checkpoint.shards}
    for info in sorted(checkpoint.tensors.values(), key=lambda info: info.start):
        inside[info.file].extend(made[info.name])
    return tuple(
        ShardJob(path=folder / shard.name, source=shard, tensors=tuple(tensors), metadata=metadata)
        for shard, tensors in inside.items()
    )
