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


def build(
    recipe: Annotated[str, typer.Argument(help="A recipe, or a plan.json made by veche plan.")],
    source: Annotated[Path, typer.Option(help="The checkpoint folder to grow; only read.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted build.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Threads.", show_default="processors, at most 4"),
    ] = None,
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
    from veche.surgery.build import build as build_model

    made = planned(
        recipe,
        chosen_language(lang),
        set_fields=set_fields,
        rope_length=rope_length,
        allow_lossy=allow_lossy,
        mode=mode,
        seed=seed,
        base=None if recipe.endswith(".json") else str(source),
    )
    report = build_model(
        made, source, out, resume=resume, num_workers=workers, progress=TerminalProgress()
    )
    if as_json:
        print_json(report.as_dict())
        return
    stdout.print(
        f"{report.target}: {report.num_tensors} tensors, {format_bytes(report.num_bytes)}, "
        f"{len(report.shards)} shards",
        markup=False,
    )
