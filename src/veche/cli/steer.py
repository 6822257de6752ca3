"""`veche steer`: push a voice towards some experts, away from others."""

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
    stderr,
)

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.experts.steering.basis import SteeringBasis

steer = typer.Typer(
    name="steer",
    help="Push a voice towards some experts, away from others; measure what that does.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ModelArgument = Annotated[Path, typer.Argument(help="A mixture-of-experts model's folder.")]
SteeringOption = Annotated[Path, typer.Option(help="A steering that veche steer find wrote.")]
LayersOption = Annotated[
    str | None,
    typer.Option(help="Model layers to act on, as 10-20.", show_default="all that are steered"),
]


@steer.command()
def find(
    model: ModelArgument,
    for_: Annotated[Path, typer.Option("--for", help="Texts to steer for: one a line, or JSONL.")],
    against: Annotated[Path, typer.Option(help="Texts to steer against, likewise.")],
    out: Annotated[Path, typer.Option(help="The steering to write.")] = Path(
        "steering.safetensors"
    ),
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Experts to steer at most.", show_default="a tenth of all"),
    ] = None,
    layers: LayersOption = None,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the texts left for evaluate.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the experts that texts of one set are sent to more often than those of another."""
    from veche.core.files import require_apart
    from veche.experts.identity import source_of
    from veche.experts.steering.file import save_steering
    from veche.experts.steering.find import FindSettings
    from veche.experts.steering.find import find as search
    from veche.experts.steering.report import found_dict
    from veche.experts.steering.texts import read_texts

    language = chosen_language(lang)
    progress = TerminalProgress()
    require_apart(out, model, for_, against)
    texts, others = read_texts(for_), read_texts(against)
    chosen = _layers(layers)
    _num_experts(model)
    loaded = open_engine(engine, str(model), engine_option)
    steering, contrast = search(
        loaded,
        texts,
        others,
        source=source_of(str(model), progress=progress),
        settings=FindSettings(most=most, layers=chosen, holdout=holdout, seed=seed),
        progress=progress,
    )
    save_steering(out, steering)
    if as_json:
        print_json({"file": str(out), **found_dict(steering, contrast)})
    else:
        from veche.cli.steer_view import show_found

        show_found(steering, contrast, out, language)


@steer.command()
def apply(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help="What the voice is asked.")],
    steering: SteeringOption,
    strength: Annotated[float, typer.Option(help="In nats; negative steers the other way.")] = 2.0,
    layers: LayersOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 120,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of both answers.")] = 0,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a prompt with and without steering, from the same trunk and seed."""
    from veche.engines.protocol import Sampling
    from veche.experts.steering.apply import answer_twice

    language = chosen_language(lang)
    basis, is_same_model = _fitting(steering, model)
    chosen = basis.at(strength, _layers(layers))
    pair = answer_twice(
        open_engine(engine, str(model), engine_option),
        prompt,
        chosen,
        sampling=Sampling(max_new_tokens=max_tokens, temperature=temperature, seed=seed),
    )
    if as_json:
        print_json({"strength": strength, "is_same_model": is_same_model, **pair.as_dict()})
    else:
        from veche.cli.steer_view import show_pair

        _warn(is_same_model, basis, language)
        show_pair(pair, strength, language)


@steer.command()
def evaluate(
    model: ModelArgument,
    steering: SteeringOption,
    for_: Annotated[
        Path, typer.Option("--for", help="Texts to steer for; those of find are left out.")
    ],
    against: Annotated[Path, typer.Option(help="Texts to steer against, likewise.")],
    neutral: Annotated[
        Path | None,
        typer.Option(help="A neutral text.", show_default="half of Python's own help texts"),
    ] = None,
    strength: Annotated[str, typer.Option(help="Strengths in nats, with commas.")] = "0.5,1,2,4",
    layers: LayersOption = None,
    pieces: Annotated[int, typer.Option(min=2, help="Pieces of neutral text.")] = 16,
    out: Annotated[
        Path | None,
        typer.Option(help="The PNG to write.", show_default="beside the steering"),
    ] = None,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what a steering is for, and what it does besides, at several strengths."""
    from veche.core.extras import require_extra
    from veche.core.files import read_text, require_apart
    from veche.experts.steering.evaluate import JudgingTexts
    from veche.experts.steering.evaluate import evaluate as judge
    from veche.experts.steering.picture import plot_steering
    from veche.experts.steering.texts import pieces_of, read_texts
    from veche.surgery.carving.calibration import heldout_text

    language = chosen_language(lang)
    require_extra("plots")
    picture = out or steering.with_suffix(".png")
    require_apart(picture, *filter(None, (model, steering, for_, against, neutral)))
    basis, is_same_model = _fitting(steering, model)
    strengths, chosen = _strengths(strength), _layers(layers)
    text = read_text(neutral) if neutral else heldout_text()
    texts = JudgingTexts(
        for_=read_texts(for_),
        against=read_texts(against),
        neutral=pieces_of(text, num_pieces=pieces, characters=_PIECE_CHARACTERS),
    )
    figures = judge(
        open_engine(engine, str(model), engine_option),
        basis,
        texts,
        strengths=strengths,
        layers=chosen,
        progress=TerminalProgress(),
    )
    plot_steering(picture, figures, basis.finding, language=language)
    if as_json:
        print_json({"picture": str(picture), "is_same_model": is_same_model} | figures.as_dict())
    else:
        from veche.cli.steer_view import show_evaluation

        _warn(is_same_model, basis, language)
        show_evaluation(figures, basis.finding, picture, language)


_PIECE_CHARACTERS = 600


def _fitting(path: Path, model: Path) -> tuple["SteeringBasis", bool]:
    """Return a steering, and whether it was found with just this model."""
    from veche.experts.identity import source_of
    from veche.experts.steering.file import load_steering

    basis, num_experts = load_steering(path), _num_experts(model)
    source = source_of(str(model), progress=TerminalProgress())
    basis.require_fit(source.layers, num_experts, str(model))
    return basis, source.identity == basis.source.identity


def _num_experts(model: Path) -> int:
    from veche.checkpoint.config import read_config, spec_of
    from veche.core.errors import UnsupportedError

    spec = spec_of(read_config(model))
    if not spec.num_experts:
        raise UnsupportedError(
            f"{model} has no experts to steer: it is a dense {spec.model_type}",
            hint="carve it into experts first: veche carve",
        )
    return spec.num_experts


def _warn(is_same_model: bool, basis: "SteeringBasis", language: "Language") -> None:
    from veche.experts.steering.phrases import phrase

    if not is_same_model:
        stderr.print(phrase("other_model", language, model=basis.source.model), soft_wrap=True)


def _layers(given: str | None) -> range | None:
    from veche.core.errors import InputError

    if given is None:
        return None
    first, _, last = given.partition("-")
    try:
        chosen = range(int(first), int(last or first) + 1)
    except ValueError:
        chosen = range(0)
    if not chosen:
        raise InputError(f"--layers {given} is no range of layers", hint="write it as 10-20")
    return chosen


def _strengths(given: str) -> tuple[float, ...]:
    from math import isfinite

    from veche.core.errors import InputError

    try:
        values = tuple(sorted({float(part) for part in given.split(",")}))
    except ValueError:
        values = ()
    if not values or not all(isfinite(value) for value in values) or 0 in values:
        raise InputError(
            f"--strength {given} are no strengths: numbers other than 0, with commas between",
            hint="--strength 0.5,1,2",
        )
    return values
