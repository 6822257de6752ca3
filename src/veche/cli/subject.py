"""What MODEL means on the command line of `veche launch`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from veche.checkpoint.spec import ModelSpec
    from veche.core.language import Language
    from veche.launch.stored_weights import StoredWeights
    from veche.planning.plan import BuildPlan

PLACEHOLDER = "MODEL"
"""Stands in commands for weights that are not there yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to be launched.

    Attributes:
        spec: its shape.
        name: what was typed.
        path: what a command loads: a folder, a hub id, or a placeholder.
        notes: what must be known of it before it is launched.
        stored: what its config.json says of quantised weights; None where they are plain.
    """

    spec: "ModelSpec"
    name: str
    path: str = PLACEHOLDER
    notes: tuple[str, ...] = ()
    stored: "StoredWeights | None" = None


def subject(model: str, language: "Language") -> Subject:
    """Return the model that is meant: the target of a recipe or plan, a base, a folder, a hub id.

    Raises:
        InputError: it is none of these.
    """
    import difflib

    from veche.checkpoint.config import spec_of
    from veche.cli.phrases import phrase
    from veche.cli.plan import planned
    from veche.core.errors import InputError
    from veche.launch.stored_weights import stored_weights
    from veche.planning.bases import load_base, shipped_bases
    from veche.planning.recipe import shipped_recipes

    recipes, bases, path = shipped_recipes(), shipped_bases(), Path(model)
    if path.is_dir() or model.endswith("config.json"):
        folder = path if path.is_dir() else path.parent
        config = load_base(model)
        return Subject(
            spec=spec_of(config, where=model),
            name=model,
            path=str(folder),
            stored=stored_weights(config),
        )
    if model in recipes or path.is_file():
        plan = planned(model, language)
        return Subject(spec=plan.target_spec, name=model, notes=_notes_of(plan, model, language))
    if model in bases or "/" in model:
        is_base = model in bases
        config = load_base(model)
        return Subject(
            spec=spec_of(config, where=model),
            name=model,
            path=PLACEHOLDER if is_base else model,
            notes=(phrase("placeholder_base", language, base=model),) if is_base else (),
            stored=stored_weights(config),
        )
    near = difflib.get_close_matches(model, [*recipes, *bases], n=1, cutoff=0.5)
    raise InputError(
        f"{model!r} is neither a recipe, a plan, a shipped base nor a folder",
        hint=(f"did you mean {near[0]!r}? " if near else "")
        + f"recipes: {', '.join(recipes)}; bases: {', '.join(bases)}",
    )


def model_in_log(name: str | None, language: "Language") -> Subject:
    """Return the model that a start-up log names: a folder that is here, or a shipped base.

    Raises:
        InputError: the log names none, or one that is not known.
    """
    import re

    from veche.core.errors import InputError

    hint = "say which it is: veche launch MODEL --parse-log FILE"
    if name is None:
        raise InputError("the log does not say which model it is of", hint=hint)
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower().removesuffix(".gguf")
    for candidate in (name, last, _without_types(last), _without_types(name)):
        try:
            return subject(candidate, language)
        except InputError:
            continue
    raise InputError(f"the log is of {name!r}, a model that veche does not know", hint=hint)


def _without_types(name: str) -> str:
    """`Qwen3-30B-A3B-Q4_K_M` → Qwen3-30B-A3B: publishers append the data type of the weights."""
    from veche.planning.quantization import QUANTIZATIONS

    words = {"gguf", "fp8-dynamic", "awq-4bit", "int4", "w4a16", "w8a8"}
    words |= {alias for entry in QUANTIZATIONS.values() for alias in (entry.name, *entry.aliases)}
    endings = sorted((f"-{word.lower()}" for word in words), key=len, reverse=True)
    while ending := next((end for end in endings if name.lower().endswith(end)), None):
        name = name[: -len(ending)]
    return name


def _notes_of(plan: "BuildPlan", model: str, language: "Language") -> tuple[str, ...]:
    """Say what must be decided first, and what MODEL stands for."""
    from veche.cli.phrases import phrase

    undecided = [
        phrase(
            "undecided",
            language,
            fields=", ".join(conflict.fields),
            flags=" | ".join(way.flag for way in conflict.resolutions),
            model=model,
        )
        for conflict in plan.conflicts
    ]
    return (*undecided, phrase("placeholder_plan", language))
