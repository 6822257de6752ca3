"""`veche build`: carry a plan out."""

from pathlib import Path
from typing import Annotated

import typer

from veche.cli.plan import (
    LossyOption,
    ModeOption,
    RopeLengthOption,
    SeedOption,
    SetOption,
    planned,
)
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stdout,
)

WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Threads, or Ray tasks at a time.",
        show_default="processors, at most 4; with Ray all of the cluster's",
    ),
]
ExecutorOption = Annotated[
    str, typer.Option(help="Where shards are made: local or ray.", metavar="NAME")
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster; auto for the one of this machine.",
        metavar="ADDRESS",
        show_default="$RAY_ADDRESS, else processes here",
    ),
]
StagingOption = Annotated[
    Path | None,
    typer.Option(help="Where remote folders are staged.", show_default="staging in VECHE_HOME"),
]
KeepStagedOption = Annotated[
    bool, typer.Option("--keep-staged", help="Leave what was staged there.")
]


def build(
    recipe: Annotated[str, typer.Argument(help="A recipe, or a plan.json made by veche plan.")],
    source: Annotated[
        str, typer.Option(help="The checkpoint folder to grow, or its URL; only read.")
    ],
    out: Annotated[str, typer.Option(help="The folder to make, or its URL.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted build.")
    ] = False,
    workers: WorkersOption = None,
    executor: ExecutorOption = "local",
    ray_address: RayAddressOption = None,
    staging: StagingOption = None,
    keep_staged: KeepStagedOption = False,
    set_fields: SetOption = None,
    rope_length: RopeLengthOption = None,
    allow_lossy: LossyOption = None,
    mode: ModeOption = None,
    seed: SeedOption = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grow a checkpoint as planned, as a stream; the source is only read."""
    from veche.core.units import format_bytes
    from veche.surgery.executor import executor_named
    from veche.surgery.remote.build import build_at

    report = build_at(
        lambda base: planned(
            recipe,
            chosen_language(lang),
            set_fields=set_fields,
            rope_length=rope_length,
            allow_lossy=allow_lossy,
            mode=mode,
            seed=seed,
            base=None if recipe.endswith(".json") else str(base),
        ),
        source,
        out,
        staging=staging,
        keep_staged=keep_staged,
        resume=resume,
        num_workers=workers,
        executor=executor_named(executor, ray_address=ray_address),
        progress=TerminalProgress(),
    )
    if as_json:
        print_json(report.as_dict())
        return
    stdout.print(
        f"{report.target}: {report.num_tensors} tensors, {format_bytes(report.num_bytes)}, "
        f"{len(report.shards)} shard{'' if len(report.shards) == 1 else 's'}",
        markup=False,
    )
