"""What `veche role train` says and writes without training: --dry-run and --emit."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from veche.cli.terminal import print_json, stdout

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.roles.data.example import Example
    from veche.roles.role import Role
    from veche.roles.training.memory_plan import MemoryPlan
    from veche.roles.training.settings import TrainingSettings
    from veche.roles.training.train import Preparation

_ONLY_HERE = ("--dry-run", "--emit", "--gpus", "--nodes", "--main-address")
_MOST_SHARED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be trained, and how.

    Attributes:
        role: whose voice, or whose probe.
        model: the base model's folder.
        examples: all that were read.
        settings: the dials.
        out: the folder to make.
        cache: a folder for what a probe has read; None keeps nothing.
        resume: whether a training in OUT.partial goes on.
        license: SPDX identifier of what is trained.
        language: of what people read.
        as_json: whether one JSON object is printed.
    """

    role: "Role"
    model: Path
    examples: "Sequence[Example]"
    settings: "TrainingSettings"
    out: Path
    cache: Path | None
    resume: bool
    license: str | None
    language: "Language"
    as_json: bool

    @property
    def learnable(self) -> "list[Example]":
        """Examples whose answers are not known to be wrong: a voice learns to say what it reads."""
        return [example for example in self.examples if example.is_right is not False]

    @property
    def num_wrong(self) -> int:
        """How many are left out for that."""
        return len(self.examples) - len(self.learnable)


def show_plan(asked: Asked) -> None:
    """Print what is learnt from, every dial with its reason, memory, and which cards suffice."""
    from veche.checkpoint.config import read_config, spec_of
    from veche.roles.training.memory_plan import fitting_cards, largest_pass, plan_memory
    from veche.roles.training.record import data_counts
    from veche.roles.training.train import prepare

    ready = prepare(asked.model, asked.learnable, asked.settings, role=asked.role)
    size = largest_pass(ready.tokenised.examples, ready.settings)
    plan = plan_memory(spec_of(read_config(asked.model)), ready.settings, size)
    cards = fitting_cards(plan)
    if not asked.as_json:
        _show(ready, plan, cards, asked.language)
        return
    print_json(
        {
            "role": asked.role.name,
            "data": {"wrong": asked.num_wrong} | data_counts(ready.tokenised),
            "settings": ready.settings.as_dict(),
            "reasons": dict(ready.settings.reasons),
            "memory": plan.as_dict(),
            "cards": cards,
        }
    )


def emit_scripts(
    asked: Asked, folder: Path, *, gpus: int, nodes: int, main_address: str | None
) -> None:
    """Write accelerate's config and the scripts that start this same training on many cards."""
    import yaml

    from veche.checkpoint.config import read_config, spec_of
    from veche.core.files import require_empty, write_together
    from veche.roles.training.phrases import phrase
    from veche.roles.training.scale_out import (
        CONFIG_FILE,
        Fleet,
        accelerate_command,
        accelerate_config,
        torchrun_command,
    )
    from veche.roles.training.train import prepare

    fleet = Fleet(num_gpus=gpus, num_nodes=nodes, main_address=main_address)
    prepare(
        asked.model,
        asked.learnable,
        asked.settings,
        role=asked.role,
        num_processes=fleet.num_processes,
    )
    require_empty(folder, advice="name a new folder: --emit FOLDER")
    spec, training = spec_of(read_config(asked.model)), ["veche", *_without(sys.argv[1:])]
    commands = {
        "train-torchrun.sh": torchrun_command(training, fleet),
        "train-fsdp.sh": accelerate_command(f"{folder / CONFIG_FILE}", training, fleet),
    }
    config = yaml.safe_dump(accelerate_config(spec, fleet), sort_keys=False)
    files = {folder / name: _script(line, nodes) for name, line in commands.items()}
    write_together({folder / CONFIG_FILE: config, **files})
    if asked.as_json:
        print_json({"folder": str(folder), "commands": commands})
        return
    stdout.print(phrase("emitted", asked.language, path=folder), soft_wrap=True)
    for line in commands.values():
        stdout.print(line, soft_wrap=True)


def _without(arguments: Sequence[str]) -> list[str]:
    """Return the command's arguments without those that keep it from training."""
    kept: list[str] = []
    skips = False
    for argument in arguments:
        name = argument.partition("=")[0]
        if skips:
            skips = False
        elif name in _ONLY_HERE:
            skips = name != "--dry-run" and "=" not in argument
        elif name != "--json":
            kept.append(argument)
    return kept


def _script(line: str, nodes: int) -> str:
    rank = ': "${RANK:?the number of this machine, from 0}"\n' if nodes > 1 else ""
    return f"#!/bin/sh\nset -eu\n{rank}exec {line}\n"


def _show(
    ready: "Preparation", plan: "MemoryPlan", cards: dict[str, int | None], language: "Language"
) -> None:
    from veche.core.units import format_bytes, grouped
    from veche.roles.training.phrases import phrase
    from veche.roles.training.record import data_counts

    counts = data_counts(ready.tokenised)
    said = {name: grouped(count, language) for name, count in counts.items()}
    stdout.print(
        phrase(
            "learnt_from",
            language,
            **{name: said[name] for name in ("examples", "tokens", "loss_tokens")},
        )
    )
    if counts["too_long"]:
        length = ready.settings.max_length
        too_long = phrase(
            "too_long",
            language,
            max_length=length,
            count=counts["too_long"],
            longest=counts["longest"],
        )
        stdout.print(too_long, soft_wrap=True)
    dials = _table(*(phrase(f"col_{key}", language) for key in ("dial", "value", "reason")))
    for name, value in ready.settings.as_dict().items():
        reason = ready.settings.reasons.get(name, phrase("given", language))
        dials.add_row(name, f"{value:g}" if isinstance(value, float) else str(value), reason)
    stdout.print(dials)
    memory = _table(phrase("col_memory", language), "")
    parts = ("weights", "adapter", "gradients", "optimizer", "prefix", "activations", "logits")
    for name in (*parts, "total"):
        memory.add_row(phrase(name, language), format_bytes(getattr(plan, name), language))
    stdout.print(memory)
    for key, names in _by_number(cards).items():
        if names:
            stdout.print(phrase(key, language, cards=", ".join(names)), soft_wrap=True)


def _by_number(cards: dict[str, int | None]) -> dict[str, list[str]]:
    return {
        "one_card": [name for name, count in cards.items() if count == 1],
        "shared": [
            f"{count} × {name}"
            for name, count in cards.items()
            if count is not None and 1 < count <= _MOST_SHARED
        ],
        "no_card": [name for name, count in cards.items() if count is None or count > _MOST_SHARED],
    }


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
