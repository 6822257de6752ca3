"""Build from a source and into a target that may each be a URL: staged here, then sent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.reader import Checkpoint
from veche.core.errors import CheckpointError
from veche.core.progress import Progress, Silent
from veche.planning.plan import BuildPlan
from veche.surgery.build import BuildReport, build
from veche.surgery.executor import Executor
from veche.surgery.grow import require_same_base
from veche.surgery.remote.folder import RemoteFolder
from veche.surgery.remote.staging import Stage, staged
from veche.surgery.remote.transfer import fetch, require_ours, store

_LOCAL = "file://"
Planner = Callable[[Path], BuildPlan]
"""Makes the plan, given the folder that holds the source's config.json."""


def build_at(
    planner: Planner,
    source: str,
    target: str,
    *,
    staging: Path | None = None,
    keep_staged: bool = False,
    resume: bool = False,
    num_workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Grow the checkpoint at `source` into `target`; each is a path or a URL.

    A remote source is fetched first, its small files before its shards, so that a plan that does
    not fit is refused early. A remote target is sent when the build is done, config.json last.

    Args:
        planner: makes the plan.
        source: a checkpoint folder.
        target: must not exist, or be empty.
        staging: where remote folders are staged; by default in VECHE_HOME.
        keep_staged: leave what was staged; otherwise nothing is left when all is done.
        resume: continue an interrupted build of the same plan, source and target.
        num_workers: as in `build`.
        executor: as in `build`. Workers on other machines must see the staging folder.
        progress: where to report.

    Raises:
        InputError: a URL cannot be used, or the target is taken.
        TransferError: a remote folder does not answer; what was staged is kept for `resume`.
        VecheError: as `build`.
    """
    progress = progress or Silent()

    def grow(plan: BuildPlan, source: Path, target: Path) -> BuildReport:
        return build(
            plan,
            source,
            target,
            resume=resume,
            num_workers=num_workers,
            executor=executor,
            progress=progress,
        )

    start, end = _place(source), _place(target)
    if isinstance(start, Path) and isinstance(end, Path):
        return grow(planner(start), start, end)
    with staged(source, target, at=staging, resume=resume, keep=keep_staged) as stage:
        if isinstance(end, RemoteFolder):
            require_ours(end, stage, resume=resume)
        plan, folder = _plan_and_fetch(planner, start, stage, progress)
        if isinstance(end, Path):
            return grow(plan, folder, end)
        report = grow(plan, folder, stage.grown)
        store(stage.grown, end, stage, progress)
        return replace(report, target=end.url)


def _place(address: str) -> Path | RemoteFolder:
    if "://" not in address or address.startswith(_LOCAL):
        return Path(address.removeprefix(_LOCAL))
    return RemoteFolder(address)


def _plan_and_fetch(
    planner: Planner, start: Path | RemoteFolder, stage: Stage, progress: Progress
) -> tuple[BuildPlan, Path]:
    """Return the plan and the folder of the source, with all of it there."""
    if isinstance(start, Path):
        return planner(start), start
    if "config.json" not in start.files():
        raise CheckpointError(
            f"{start.url} holds no config.json",
            hint="give the URL of the folder that holds it",
        )
    fetch(start, stage, progress, with_shards=False)
    plan = planner(stage.source)
    if plan.base == str(stage.source):
        plan = replace(plan, base=start.url)
    _require_fitting(plan, stage.source)
    fetch(start, stage, progress, with_shards=True)
    return plan, stage.source


def _require_fitting(plan: BuildPlan, folder: Path) -> None:
    """Refuse a plan for another model before its shards are fetched."""
    plan.require_buildable()
    config = read_config(folder)
    spec = spec_of(config, where=str(folder / "config.json"))
    require_same_base(
        plan, Checkpoint(folder=folder, config=config, spec=spec, tensors={}, shards=())
    )
