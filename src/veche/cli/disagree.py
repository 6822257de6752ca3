"""`veche experts disagree`: where voices part while they read the same answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veche.cli.engine_options import EngineOption, EngineOptions, open_engine
from veche.cli.phrases import phrase
from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from veche.core.language import Language
    from veche.engines.protocol import Branch
    from veche.experts.disagreement_map import DisagreementMap
    from veche.roles.role import Role
    from veche.roles.speaker import Speaker

_JSON_NAME, _PICTURE_NAME = "disagreement.json", "disagreement.png"
_SHORT = 24


def disagree(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    question: Annotated[str, typer.Argument(help="What all voices are asked.")],
    voices: Annotated[
        str, typer.Option(help="Roles, by name, with commas between.")
    ] = "logician,objector",
    prompts: Annotated[
        list[str] | None,
        typer.Option("--as", help="A voice of your own, by its prompt; may be repeated."),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="What all of them read.", show_default="what the first one answers"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the first voice's answer.")] = 96,
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for {_JSON_NAME} and {_PICTURE_NAME}.")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let voices read one answer, and map where their states and their next words part."""
    from veche.core.files import require_apart, write_json
    from veche.council import prompts as council_prompts
    from veche.engines.protocol import Capability, require
    from veche.experts.disagreement_map import disagreement
    from veche.experts.disagreement_plot import plot_disagreement
    from veche.roles.host import host_of
    from veche.roles.hot_swap import HotSwap
    from veche.surgery.loading import load_tokenizer

    language = chosen_language(lang)
    if out is not None:
        require_apart(out, model)
    roles = [] if prompts else _roles(voices)
    host = host_of(str(model), roles)
    asked = open_engine(engine, str(model), engine_option)
    require(asked, Capability.SCORE, Capability.LOGITS, Capability.HIDDEN_STATES)
    with HotSwap(asked, host=host).holding(roles) as speakers:
        branches = _own_branches(prompts) if prompts else _role_branches(speakers, language)
        trunk = asked.open_trunk(
            system=council_prompts.system(language),
            user=council_prompts.question(question, language),
        )
        told = disagreement(
            asked, trunk, branches, answer,
            max_tokens=max_tokens, hidden_layers=_all_layers(model),
            texts_of=_texts_of(load_tokenizer(model)),
        )  # fmt: skip
        asked.close_trunk(trunk)
    found = {"question": question, **told.as_dict()}
    if out is not None:
        write_json(out / _JSON_NAME, found)
        plot_disagreement(out / _PICTURE_NAME, told, language=language)
    if as_json:
        print_json(found)
    else:
        _show(told, out, language)


def _all_layers(model: Path) -> range:
    from veche.checkpoint.config import read_config, spec_of

    return range(1, spec_of(read_config(model), where=str(model)).num_hidden_layers + 1)


def _own_branches(prompts: Sequence[str]) -> list["Branch"]:
    """Return a voice for each prompt of the user's."""
    from veche.engines.protocol import Branch

    return [
        Branch(voice=_named(prompt, number), instruction="\n\n" + prompt)
        for number, prompt in enumerate(prompts, 1)
    ]


def _roles(names: str) -> list["Role"]:
    from veche.roles.registry import Registry

    registry = Registry()
    return [registry.get(name.strip()) for name in names.split(",") if name.strip()]


def _role_branches(speakers: "Sequence[Speaker]", language: "Language") -> list["Branch"]:
    """Return what each role is told, with its adapter and steering; all of them greedy."""
    from veche.council.prompts import draft_task
    from veche.engines.protocol import Sampling
    from veche.roles.speaker import instruction_for

    return [
        replace(
            speaker.branch(
                voice=speaker.role.name,
                instruction=instruction_for(
                    speaker.role, draft_task(speaker.role.prompt[language], language)
                ),
                sampling=Sampling(),
            ),
            sampling=Sampling(),
        )
        for speaker in speakers
    ]


def _named(prompt: str, number: int) -> str:
    short = prompt if len(prompt) <= _SHORT else prompt[: _SHORT - 1] + "…"
    return f"{number}: {short}"


def _texts_of(tokenizer: Any) -> Any:
    """Return a function from tokens to their texts; half a character is shown with its end."""
    from veche.engines.detokenizer import Detokenizer

    def texts_of(ids: tuple[int, ...]) -> list[str]:
        pieces = Detokenizer(
            lambda some: str(tokenizer.decode(some, clean_up_tokenization_spaces=False))
        )
        texts = [pieces.push(token) for token in ids]
        return [*texts[:-1], texts[-1] + pieces.finish()] if texts else []

    return texts_of


def _show(told: "DisagreementMap", out: Path | None, language: "Language") -> None:

    stdout.print(told.answer, soft_wrap=True)
    stdout.print()
    for line in _lines(told, language):
        stdout.print(line, markup=False, soft_wrap=True)
    stdout.print(_table(told, language))
    if out is not None:
        stdout.print(str(out / _PICTURE_NAME), markup=False, soft_wrap=True)


def _lines(told: "DisagreementMap", language: "Language") -> Iterator[str]:
    yield phrase("js_mean", language, bits=told.js_bits.mean())
    for voice, surprise in zip(told.voices, told.surprise_nats, strict=True):
        yield phrase("surprise_mean", language, voice=voice, nats=surprise.mean())
    if told.hidden_layers:
        layer = int(told.hidden_distance.mean(0).argmax())
        yield phrase(
            "states_part", language,
            layer=told.hidden_layers[layer],
            distance=told.hidden_distance[:, layer].mean(),
            cka=told.cka[layer],
        )  # fmt: skip
    if told.routing_overlap is not None and told.routing_by_chance is not None:
        share, null = told.routing_overlap.mean(), told.routing_by_chance
        yield phrase("experts_in_common", language, share=share, null=null)


def _table(told: "DisagreementMap", language: "Language") -> "Table":
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column(phrase("col_disputed", language))
    table.add_column(phrase("col_js_bits", language), justify="right")
    for voice in told.voices:
        table.add_column(phrase("col_surprise", language, voice=voice), justify="right")
    for at in told.most_disputed():
        surprise = [f"{value:.2f}" for value in told.surprise_nats[:, at]]
        table.add_row(f"{at}: {told.tokens[at]!r}", f"{told.js_bits[at]:.3f}", *surprise)
    return table
