"""`veche role data`: make problems, and collect what the system itself answers to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.engine_options import EngineOption, EngineOptions, open_engine
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stdout,
)

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.engines.protocol import Engine
    from veche.roles.data.answer_file import AnswerFile
    from veche.roles.data.asking import Asked, Asking
    from veche.roles.data.example import Example
    from veche.roles.data.own_answers import Question
    from veche.roles.data.problems.puzzle import Kind
    from veche.roles.role import Role

data = typer.Typer(
    name="data",
    help="What roles learn from: made problems, and the system's own answers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ModelArgument = Annotated[Path, typer.Argument(help="A model folder.")]
KindOption = Annotated[
    list[str] | None,
    typer.Option("--kind", help="Kind of problem; may be repeated.", show_default="all kinds"),
]
LanguagesOption = Annotated[
    list[str] | None,
    typer.Option("--language", help="Of the problems: en or ru; may be repeated.",
                 show_default="en"),
]  # fmt: skip
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="Tokens of an answer.")]


@data.command()
def generate(
    out: Annotated[Path, typer.Option(help="The JSONL to write.")],
    kind: KindOption = None,
    language: LanguagesOption = None,
    difficulty: Annotated[int, typer.Option(help="From 1 to 12.")] = 3,
    count: Annotated[
        int, typer.Option(min=1, help="Problems of each kind, in each language.")
    ] = 100,
    answers: Annotated[
        str, typer.Option(help="Behind each question: none, right, or both (a wrong one too).")
    ] = "both",
    seed: SeedOption = 0,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make problems whose labels (right, first wrong step, intent) hold by construction."""
    from veche.core.errors import OutputError
    from veche.roles.data.labelled import write_examples
    from veche.roles.data.problems.generate import generate as make
    from veche.roles.data.problems.phrases import phrase

    spoken = chosen_language(lang)
    kinds, languages = _kinds(kind), _languages(language)
    if out.exists():
        raise OutputError(
            f"{out} exists, and veche overwrites nothing", hint="choose another file: --out FILE"
        )
    made = [
        example
        for one in kinds
        for tongue in languages
        for example in make(
            one, language=tongue, difficulty=difficulty, count=count, seed=seed,
            answers=_answers(answers),
        )
    ]  # fmt: skip
    write_examples(out, made)
    num_problems = len({example.group for example in made})
    if as_json:
        print_json(
            {
                "file": str(out),
                "examples": len(made),
                "problems": num_problems,
                "kinds": list(kinds),
                "languages": list(languages),
                "difficulty": difficulty,
                "seed": seed,
            }
        )
    else:
        told = {"file": out, "examples": len(made), "problems": num_problems}
        stdout.print(phrase("generated", spoken, **told), soft_wrap=True)


@data.command()
def split(
    file: Annotated[Path, typer.Argument(help="Examples, in any form that roles learn from.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    test: Annotated[float, typer.Option(help="Share of the test part.")] = 0.2,
    validation: Annotated[float, typer.Option(help="Share of a validation part.")] = 0.0,
    seed: SeedOption = 0,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Part examples into train, test and validation, so that no problem is in two of them."""
    from veche.core.errors import InputError
    from veche.core.files import require_apart, require_empty, write_together
    from veche.roles.data.labelled import line_of
    from veche.roles.data.problems.phrases import phrase
    from veche.roles.data.read import read_examples
    from veche.roles.data.split import split_by_group

    spoken = chosen_language(lang)
    shares = {"train": 1 - test - validation, "test": test, "validation": validation}
    if not (shares["train"] > 0 and test > 0 and validation >= 0):
        raise InputError(
            f"--test {test:g} and --validation {validation:g} are no shares that leave a part to "
            "train on",
            hint="--test 0.2 --validation 0.1",
        )
    require_apart(out, file)
    require_empty(out, advice="choose another folder: --out FOLDER")
    wanted = {name: share for name, share in shares.items() if share > 0}
    found = split_by_group(read_examples(file), list(wanted.values()), seed=seed)
    parts = {out / f"{name}.jsonl": part for name, part in zip(wanted, found, strict=True)}
    write_together(
        {path: "".join(f"{line_of(each)}\n" for each in part) for path, part in parts.items()}
    )
    told = [
        {
            "part": path.stem,
            "file": str(path),
            "examples": len(part),
            "problems": len({example.group for example in part}),
        }
        for path, part in parts.items()
    ]
    if as_json:
        print_json({"parts": told, "seed": seed})
        return
    for each in told:
        stdout.print(phrase("generated", spoken, **each), soft_wrap=True)


@data.command()
def difficulty(
    model: ModelArgument,
    kind: KindOption = None,
    language: LanguagesOption = None,
    count: Annotated[int, typer.Option(min=2, help="Problems of each difficulty.")] = 40,
    shots: Annotated[int, typer.Option(min=0, help="Worked problems that are shown first.")] = 3,
    least: Annotated[float, typer.Option(min=0, max=1, help="Least share right.")] = 0.2,
    most: Annotated[float, typer.Option(min=0, max=1, help="Largest share right.")] = 0.8,
    max_tokens: MaxTokensOption = 128,
    seed: SeedOption = 0,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find how hard problems must be for a model to get some right and some wrong."""
    from veche.core.errors import InputError
    from veche.roles.data.problems.difficulty import FitSettings, find_difficulty

    spoken = chosen_language(lang)
    if least > most:
        raise InputError(f"--least {least} is above --most {most}", hint="--least 0.2 --most 0.8")
    settings = FitSettings(
        count=count, shots=shots, seed=seed, band=(least, most), max_new_tokens=max_tokens
    )
    wanted = [(one, tongue) for one in _kinds(kind) for tongue in _languages(language)]
    asked = open_engine(engine, str(model), engine_option)
    progress = TerminalProgress()
    fits = [find_difficulty(asked, *pair, settings, progress=progress) for pair in wanted]
    if as_json:
        print_json({"band": [least, most], "fits": [fit.as_dict() for fit in fits]})
    else:
        from veche.cli.role_data_view import show_fits

        show_fits(fits, spoken)


@data.command()
def collect(
    model: ModelArgument,
    questions: Annotated[Path, typer.Argument(help="Labelled JSONL with checkable answers.")],
    out: Annotated[Path, typer.Option(help="The JSONL to write, or to go on with.")],
    voices: Annotated[
        str, typer.Option(help="Roles, by name, with commas between.")
    ] = "proposer,logician,objector",
    samples: Annotated[int, typer.Option(min=1, help="Answers of each role.")] = 1,
    shots: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Problems with solutions that are shown first, and not asked.",
            show_default="3 of each kind, where the file has solutions",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="Of further samples of a greedy role.")
    ] = 0.7,
    max_tokens: MaxTokensOption = 128,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions to ask.", show_default="all")
    ] = None,
    seed: SeedOption = 0,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let voices answer questions, and mark their answers: what observers learn from.

    Interrupted, the same command goes on; answers to a question are written together.
    """
    from veche.core.files import require_apart, sole_writer
    from veche.roles.data.answer_file import AnswerFile
    from veche.roles.data.asking import asked_speakers
    from veche.roles.data.own_answers import plan_questions
    from veche.roles.data.read import read_examples
    from veche.roles.host import host_of
    from veche.roles.hot_swap import HotSwap
    from veche.roles.registry import Registry

    spoken = chosen_language(lang)
    require_apart(out, model, questions)
    examples = read_examples(questions)
    batches = plan_questions(examples, shots=shots, limit=limit)
    registry = Registry()
    roles = [registry.get(name.strip()) for name in voices.split(",") if name.strip()]
    host = host_of(str(model), roles)
    asked = open_engine(engine, str(model), engine_option)
    sampled: dict[str, Any] = {
        "samples": samples, "temperature": temperature, "max_new_tokens": max_tokens, "seed": seed,
    }  # fmt: skip
    settings = _settings(asked, model, roles, engine_option) | sampled | {"shots": shots}
    with sole_writer(out), HotSwap(asked, host=host).holding(roles) as speakers:
        file = AnswerFile(out, settings)
        voices_asked = asked_speakers(speakers, **sampled)
        for asking, asked_for in batches:
            _ask(asked, file, asking, asked_for, voices_asked)
    _show_collected(out, read_examples(out), spoken, as_json=as_json)


def _ask(
    engine: "Engine",
    file: "AnswerFile",
    asking: "Asking",
    questions: "Sequence[Question]",
    voices: "Sequence[Asked]",
) -> None:
    from veche.roles.data.own_answers import collect as answer

    waiting = [question for question in questions if question.example.group not in file.groups]
    answer(
        engine,
        waiting,
        voices,
        asking,
        keep=file.append,
        progress=TerminalProgress(),
    )


def _settings(
    engine: "Engine", model: Path, roles: "Sequence[Role]", options: Sequence[str] | None
) -> dict[str, Any]:
    """Return what must be the same when a file is gone on with."""
    from veche.roles.role_file import as_dict

    return {
        "model": str(getattr(engine, "identity", model)),
        "engine_options": list(options or ()),
        "roles": [as_dict(role) for role in roles],
    }


def _show_collected(
    out: Path, answers: "Sequence[Example]", language: "Language", *, as_json: bool
) -> None:
    from veche.roles.data.own_answers import summary_of

    found = {"file": str(out), **summary_of(answers)}
    if as_json:
        print_json(found)
    else:
        from veche.cli.role_data_view import show_summary

        show_summary(found, language)


def _kinds(given: Sequence[str] | None) -> "tuple[Kind, ...]":
    from veche.core.errors import InputError
    from veche.roles.data.problems.puzzle import KINDS

    if unknown := [kind for kind in given or () if kind not in KINDS]:
        raise InputError(
            f"there are no problems of kind {unknown[0]!r}",
            hint=f"--kind takes: {', '.join(KINDS)}",
        )
    return tuple(kind for kind in KINDS if not given or kind in given)


def _languages(given: Sequence[str] | None) -> "tuple[Language, ...]":
    from veche.core.errors import InputError
    from veche.core.language import LANGUAGES

    if unknown := [language for language in given or () if language not in LANGUAGES]:
        raise InputError(
            f"problems are not made in {unknown[0]!r}",
            hint=f"--language takes: {', '.join(LANGUAGES)}",
        )
    return tuple(language for language in LANGUAGES if language in (given or ("en",)))


def _answers(given: str) -> Any:
    from typing import get_args

    from veche.core.errors import InputError
    from veche.roles.data.problems.generate import Answers

    if given not in get_args(Answers):
        raise InputError(
            f"--answers {given} is unknown", hint=f"--answers takes: {', '.join(get_args(Answers))}"
        )
    return given
