"""`veche ask`: a council of voices over one model."""

from functools import partial
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
    stdout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from veche.core.language import Language
    from veche.engines.protocol import Engine
    from veche.roles.hot_swap import HotSwap
    from veche.roles.role import Role

_TRANSCRIPT = "transcript.jsonl"

RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A role for the council: a drafter joins, others take the seat of the default one. "
        "Repeatable.",
    ),
]
BudgetOption = Annotated[
    int | None, typer.Option(help="Tokens of the whole run.", show_default="no limit")
]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder for transcript.jsonl and routing.safetensors.")
]


def ask(
    model: Annotated[str, typer.Argument(help="A model folder, or a server's address.")],
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    engine: EngineOption = "transformers",
    engine_option: EngineOptions = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens that a voice may say in a turn.")] = 160,
    budget: BudgetOption = None,
    top_k: Annotated[
        int | None, typer.Option(help="Active experts, in place of the checkpoint's.")
    ] = None,
    role: RoleOption = None,
    out: OutOption = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the voices.")] = 0,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a council: blind drafts, objections where they differ, one answer, the token bill."""
    from veche.cli.council_view import CouncilView, show_end
    from veche.core.files import require_apart
    from veche.core.transcript import require_new
    from veche.council.deliberation import deliberate
    from veche.council.seats import seated
    from veche.council.settings import CouncilSettings
    from veche.experts.recording import recording_of_run
    from veche.experts.store import FILE_NAME, save_recording
    from veche.roles.registry import Registry

    language = chosen_language(lang)
    settings = CouncilSettings(
        max_tokens_per_voice=max_tokens, max_tokens_per_run=budget, seed=seed
    )
    if out is not None:
        require_apart(out, Path(model))
        require_new(out, _TRANSCRIPT, FILE_NAME)
    text = _standard_input() if question == "-" else question
    voices = seated(Registry(), role or ())
    view = None if as_json else CouncilView(stdout, voices, language)
    try:
        opened = partial(open_engine, engine, model, engine_option, top_k=top_k)
        swap = _swap(model, voices, language, opened)
        result = deliberate(
            swap.engine,
            text,
            settings=settings,
            voices=voices,
            swap=swap,
            transcript=None if out is None else out / _TRANSCRIPT,
            on_event=view.on_event if view else None,
            on_token=view.on_token if view else None,
            language=language,
        )
    finally:
        if view:
            view.stop()
    if out is not None:
        save_recording(out / FILE_NAME, recording_of_run(result.routing))
    if as_json:
        print_json(result.as_dict())
    else:
        show_end(stdout, result, language)


def _swap(
    model: str, voices: "Sequence[Role]", language: "Language", opened: "Callable[[], Engine]"
) -> "HotSwap":
    """Open the engine once it is known that the roles are of this model, as far as can be told."""
    from veche.cli.role_view import say
    from veche.roles.host import host_of, unproven
    from veche.roles.hot_swap import HotSwap

    host = host_of(model, voices, progress=TerminalProgress())
    for name, kind in unproven(voices, host):
        stderr.print(say("unproven", language, kind=say(kind, language), name=name), soft_wrap=True)
    return HotSwap(opened(), host=host)


def _standard_input() -> str:
    import sys

    from veche.core.errors import InputError

    try:
        text = sys.stdin.read()
        text.encode()  # a lenient stdin lets broken bytes through as lone surrogates
    except UnicodeError as error:
        raise InputError(f"the question on standard input is not UTF-8 text: {error}") from error
    return text
