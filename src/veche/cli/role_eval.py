"""`veche role eval`: what a role can do, beside what simpler means can do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.engine_options import EngineOption, EngineOptions, open_engine
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
)

if TYPE_CHECKING:
    from veche.roles.data.example import Example
    from veche.roles.evaluation.evaluate import Task
    from veche.roles.registry import Registry
    from veche.roles.role import Role

ModelArgument = Annotated[Path, typer.Argument(help="The model's folder.")]
DataOption = Annotated[
    list[Path],
    typer.Option("--data", help="Labelled examples that the role has not learnt from. Repeatable."),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="Of a set that its authors split: train, val or test.", show_default="all of it"
    ),
]
MostOption = Annotated[
    int | None,
    typer.Option(min=1, help="Examples at most: whole problems, drawn at random.",
                 show_default="all"),
]  # fmt: skip
TokensOption = Annotated[int, typer.Option(min=1, help="Of an answer that a speaking role gives.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="A folder for what was read: it is not read again.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the draw of --most.")]

_MOST_DIGITS = 9


def evaluate(
    name: Annotated[str, typer.Argument(help="The role's name, or NAME@VERSION.")],
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = None,
    learn_from: Annotated[
        list[Path] | None,
        typer.Option(
            "--learn-from",
            help="What baselines learn from, best what the role learnt from. Repeatable.",
        ),
    ] = None,
    learn_split: Annotated[
        str | None,
        typer.Option(help="Of --learn-from, likewise.", show_default="all of it"),
    ] = None,
    most: MostOption = None,
    seed: SeedOption = 0,
    max_tokens: TokensOption = 256,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for pictures: reliability diagram and ROC.")
    ] = None,
    cache: CacheOption = None,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a role on labelled examples, with intervals, beside baselines."""
    from veche.core.extras import require_extra
    from veche.core.files import require_apart
    from veche.roles.evaluation.evaluate import evaluate as measure
    from veche.roles.evaluation.figures import is_drawable, plot_part
    from veche.roles.evaluation.report import evaluation_dict
    from veche.roles.registry import Registry

    language, progress, registry = chosen_language(lang), TerminalProgress(), Registry()
    if figures is not None:
        require_extra("plots")
        require_apart(figures / "part.png", model, *data, *(learn_from or ()))
    role, version = named_role(registry, name)
    examples = read_part(data, split, most=most, seed=seed)
    learnt = read_part(learn_from or [], learn_split)
    task = opened(
        [role], model, examples, learnt, engine=engine, options=engine_option, cache=cache,
        max_tokens=max_tokens, progress=progress,
    )  # fmt: skip
    evaluation = measure(role, task, registry, version=version, progress=progress)
    pictures = []
    for part in evaluation.parts if figures is not None else ():
        if figures is not None and is_drawable(part):
            path = figures / f"{role.name}-{part.measures}.png"
            plot_part(path, part, name=role.title[language], language=language)
            pictures.append(path)
    if as_json:
        print_json({**evaluation_dict(evaluation), "pictures": [str(path) for path in pictures]})
    else:
        from veche.cli.role_eval_view import show_evaluation

        show_evaluation(evaluation, pictures, language)


def named_role(registry: "Registry", name: str) -> tuple["Role", int]:
    """Return the role that NAME or NAME@VERSION means, and its version.

    Raises:
        InputError: what is behind the @ is no version.
        RoleError: there is none such.
    """
    from veche.core.errors import InputError

    bare, at, number = name.partition("@")
    if at and not (number.isdecimal() and len(number) <= _MOST_DIGITS):
        raise InputError(
            f"{name[:80]!r} names no version", hint=f"as {bare}@2: veche role show {bare}"
        )
    version = int(number) if at else None
    role = registry.get(bare, version)
    in_use = next((each.number for each in registry.versions(bare) if each.is_in_use), 0)
    return role, in_use if version is None else version


def read_part(
    paths: list[Path], split: str | None, *, most: int | None = None, seed: int = 0
) -> list["Example"]:
    """Return the examples of some files, or so many of them, problems whole.

    Raises:
        InputError: a file is unreadable, or has no such part.
    """
    from veche.core.errors import InputError
    from veche.roles.data.public_sets import SPLITS
    from veche.roles.data.read import read_examples

    if split is not None and split not in SPLITS:
        raise InputError(f"there is no part {split!r}", hint=f"known: {', '.join(SPLITS)}")
    examples = [example for path in paths for example in read_examples(path, split=split)]
    if most is None or most >= len(examples):
        return examples
    from veche.roles.data.split import split_by_group

    share = most / len(examples)
    return split_by_group(examples, [share, 1 - share], seed=seed)[0]


def opened(
    roles: list["Role"],
    model: Path,
    examples: list["Example"],
    learn_from: list["Example"],
    *,
    engine: str,
    options: list[str] | None,
    cache: Path | None,
    max_tokens: int,
    progress: TerminalProgress,
) -> "Task":
    """Load the model, and return what roles are measured with."""
    from veche.roles.evaluation.evaluate import Task
    from veche.roles.host import host_of

    return Task(
        model=model,
        engine=open_engine(engine, str(model), options),
        host=host_of(str(model), roles, progress=progress),
        examples=examples,
        learn_from=learn_from,
        max_tokens=max_tokens,
        cache=cache,
    )
