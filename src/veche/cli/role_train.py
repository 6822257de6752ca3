"""`veche role train`: teach a role's voice, or what an observer measures with."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.role_train_plan import Asked, emit_scripts, show_plan
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
)

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.roles.role import ArtefactKind, Role
    from veche.roles.training.settings import TrainingSettings
    from veche.roles.training.train import TrainedAdapter

NameArgument = Annotated[str, typer.Argument(help="The role's name; see veche role list.")]
ModelArgument = Annotated[Path, typer.Argument(help="The base model's folder; only read.")]
DataOption = Annotated[
    list[Path], typer.Option(help="Examples: chat JSONL, transcripts, labelled sets. Repeatable.")
]
PartOption = Annotated[
    str | None,
    typer.Option(
        help="adapter: how it speaks; probe: what it measures with.",
        show_default="probe for observers and readers, else adapter",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option(help="The folder to make.", show_default="NAME-PART")
]
MethodOption = Annotated[
    str, typer.Option(help="alora, lora or merged-experts; see veche's docs on roles.")
]
OptimizerOption = Annotated[str, typer.Option(help="adamw or loft.")]
RateOption = Annotated[float | None, typer.Option(help="The highest.", show_default="2e-4")]
StepsOption = Annotated[
    int | None, typer.Option(help="Optimiser steps.", show_default="epochs × examples / batch")
]
MicroOption = Annotated[
    int | None,
    typer.Option(help="Examples of one forward pass.", show_default="all of the batch"),
]
LengthOption = Annotated[
    int | None,
    typer.Option(help="Tokens; longer examples are left out.", show_default="2048"),
]
CheckpointingOption = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="Compute layers again in the backward pass.",
        show_default="above 10⁹ parameters",
    ),
]
BalanceOption = Annotated[
    float | None,
    typer.Option(
        help="Weight of the routers' balance loss.",
        show_default="0; the model's own for merged-experts",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="A folder: what an observer's probe has read is not read again."),
]
SaveOption = Annotated[
    int | None, typer.Option(help="Steps between checkpoints.", show_default="a tenth of all")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")]
EmitOption = Annotated[
    Path | None,
    typer.Option(help="Only write scripts and accelerate's config for --gpus × --nodes here."),
]
RankOption = Annotated[int, typer.Option(help="Of each pair of factors.")]
EpochsOption = Annotated[float, typer.Option(help="Times that each example is seen.")]
BatchOption = Annotated[int, typer.Option(help="Examples of one step, over all processes.")]
DtypeOption = Annotated[str, typer.Option(help="auto, bfloat16 or float32.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of first weights and order.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where it was stopped.")]
GpusOption = Annotated[int, typer.Option(min=1, help="Cards of each machine, for --emit.")]
NodesOption = Annotated[int, typer.Option(min=1, help="Machines, for --emit.")]
AddressOption = Annotated[str | None, typer.Option(help="The first machine's, for --emit.")]
LicenseOption = Annotated[str | None, typer.Option(help="SPDX identifier of what is trained.")]


def train(
    context: typer.Context,
    name: NameArgument,
    model: ModelArgument,
    data: DataOption,
    part: PartOption = None,
    out: OutOption = None,
    cache: CacheOption = None,
    method: MethodOption = "alora",
    optimizer: OptimizerOption = "adamw",
    rank: RankOption = 16,
    learning_rate: RateOption = None,
    steps: StepsOption = None,
    epochs: EpochsOption = 1.0,
    batch: BatchOption = 8,
    micro_batch: MicroOption = None,
    max_length: LengthOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    router_aux_loss_coef: BalanceOption = None,
    dtype: DtypeOption = "auto",
    seed: SeedOption = 0,
    save_every: SaveOption = None,
    resume: ResumeOption = False,
    dry_run: DryOption = False,
    emit: EmitOption = None,
    gpus: GpusOption = 1,
    nodes: NodesOption = 1,
    main_address: AddressOption = None,
    license: LicenseOption = None,  # noqa: A002 - the word that model cards have
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter or a probe for a role, and put the new version of the role in use."""
    given = dict(locals())
    from veche.core.extras import require_extra
    from veche.core.files import require_apart
    from veche.roles.data.read import read_examples
    from veche.roles.registry import Registry

    language, settings = chosen_language(lang), _settings(given)
    _require_license(license)
    role = Registry().get(name)
    trainer = _trainer(part, role)
    _require_fitting(context, trainer, role)
    require_extra("probe" if trainer == "probe" else "train")
    target = out or Path(f"{name}-{trainer}")
    require_apart(target, model, *data)
    examples = [example for file in data for example in read_examples(file)]
    asked = Asked(
        role=role, model=model, examples=examples, settings=settings, out=target, cache=cache,
        resume=resume, license=license, language=language, as_json=as_json,
    )  # fmt: skip
    if emit is not None:
        emit_scripts(asked, emit, gpus=gpus, nodes=nodes, main_address=main_address)
    elif dry_run:
        show_plan(asked)
    else:
        _TRAINERS[trainer](asked)


def _settings(given: dict[str, Any]) -> "TrainingSettings":
    """Return the dials among the command's options: they have the same names."""
    from dataclasses import fields

    from veche.roles.training.settings import TrainingSettings

    names = [field.name for field in fields(TrainingSettings) if field.name in given]
    return TrainingSettings(**{name: given[name] for name in names})


def _require_license(given: str | None) -> None:
    from veche.core.errors import InputError
    from veche.roles.role_file import is_license

    if given is not None and not is_license(given):
        raise InputError(
            f"--license {given[:80]!r} is no SPDX identifier", hint="such as Apache-2.0 or MIT"
        )


def _trainer(part: str | None, role: "Role") -> str:
    from veche.core.errors import InputError

    if part is None:
        return "probe" if role.kind in ("observer", "reader") else "adapter"
    if part not in _TRAINERS:
        raise InputError(f"--part {part!r} is unknown", hint=f"known: {', '.join(_TRAINERS)}")
    return part


_EVERY = frozenset({"name", "model", "data", "part", "out", "license", "lang", "as_json"})
"""What can be said of every training."""


def _require_fitting(context: typer.Context, trainer: str, role: "Role") -> None:
    """Refuse what would have no effect: dials of adapters where a probe is trained.

    Raises:
        InputError: such an option was given.
    """
    from veche.core.errors import InputError

    fitting = set(_EVERY)
    if trainer == "probe" and role.kind == "observer":
        fitting.add("cache")
    elif trainer == "adapter":
        fitting = set(context.params) - {"cache"}
    given = (option for option in context.command.params if _is_given(context, option.name))
    if wrong := next((option for option in given if option.name not in fitting), None):
        other = next(part for part in _TRAINERS if part != trainer)
        raise InputError(
            f"{wrong.opts[0]} has no meaning for the {trainer} of role {role.name!r}, "
            "which is what would be trained",
            hint=f"leave {wrong.opts[0]} out, or train the other part: --part {other}",
        )


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name) if name else None
    return source is not None and source.name == "COMMANDLINE"


def _train_adapter(asked: Asked) -> None:
    from veche.roles.training.train import train_adapter

    progress = TerminalProgress()
    if asked.num_wrong:
        from veche.roles.training.phrases import phrase

        progress.say(phrase("wrong", asked.language, count=asked.num_wrong))
    trained = train_adapter(
        asked.model,
        asked.learnable,
        asked.settings,
        asked.out,
        role=asked.role,
        resume=asked.resume,
        progress=progress,
    )
    if not trained.is_main_process:
        return
    version = None
    if asked.settings.method != "merged-experts":
        version = _save(asked, trained.role, "adapter", trained.base_hash)
    if asked.as_json:
        record = trained.record.as_dict()
        print_json({"part": "adapter", "folder": str(asked.out), "version": version, **record})
    else:
        _show_trained(trained, version, asked.language)
        if version is not None:
            _show_next(asked)


def _train_probe(asked: Asked) -> None:
    from veche.cli.engine_options import open_engine
    from veche.cli.terminal import stdout
    from veche.roles.intent.train import train_intents
    from veche.roles.probe.train import train_probe
    from veche.roles.training.measured import measured_lines
    from veche.roles.training.phrases import phrase

    engine = open_engine("transformers", str(asked.model), None)
    learn = (
        train_intents if asked.role.kind == "reader" else partial(train_probe, cache=asked.cache)
    )
    trained = learn(engine, asked.role, asked.examples, asked.out, progress=TerminalProgress())
    version = _save(asked, asked.role, "probe", trained.base_hash)
    if asked.as_json:
        told = {"part": "probe", "folder": str(asked.out), "version": version}
        print_json(told | dict(trained.record))
        return
    for line in measured_lines(trained.record, asked.language):
        stdout.print(line, soft_wrap=True)
    stdout.print(phrase("probe_done", asked.language, path=asked.out), soft_wrap=True)
    said = phrase("saved", asked.language, name=asked.role.name, number=version)
    stdout.print(said, soft_wrap=True)
    _show_next(asked)


_TRAINERS: dict[str, Callable[[Asked], None]] = {
    "adapter": _train_adapter,
    "probe": _train_probe,
}
"""What `--part` trains."""


def _save(asked: Asked, role: "Role", part: "ArtefactKind", base_hash: str) -> int:
    """Keep what was trained, and a new version of the role that descends from the one in use."""
    from veche.roles.registry import Registry

    registry = Registry()
    before = next(item for item in registry.versions(role.name) if item.is_in_use)
    artefact = registry.keep(asked.out, part, base_hash=base_hash, license=asked.license)
    changed: dict[str, Any] = {part: artefact, "parents": (before.content_hash,)}
    how = asked.settings.method if part == "adapter" else part
    note = f"{how} on {asked.model.resolve().name}, {len(asked.examples)} examples"
    return registry.save(replace(role, **changed), note=note).number


def _show_next(asked: Asked) -> None:
    from veche.cli.terminal import stdout
    from veche.roles.training.phrases import phrase

    command = f"veche role eval {asked.role.name} {quote(str(asked.model))} --data FILE"
    stdout.print(phrase("next", asked.language, command=command), soft_wrap=True)


def _show_trained(trained: "TrainedAdapter", version: int | None, language: "Language") -> None:
    from veche.cli.terminal import stdout
    from veche.roles.training.phrases import phrase

    record = trained.record.as_dict()
    said = phrase(
        "done",
        language,
        minutes=f"{record['minutes']:.1f}",
        first=f"{record['first_loss']:.3f}",
        last=f"{record['last_loss']:.3f}",
        speed=f"{record['tokens_per_s']:.0f}",
    )
    stdout.print(said, soft_wrap=True)
    if version is None:
        stdout.print(phrase("merged", language, path=trained.folder), soft_wrap=True)
        return
    stdout.print(phrase("files", language, path=trained.folder), soft_wrap=True)
    saved = phrase("saved", language, name=trained.role.name, number=version)
    stdout.print(saved, soft_wrap=True)
