"""`veche experts`: which experts spoke, for which voice."""

from pathlib import Path
from typing import Annotated, Any

import typer

from veche.cli.asleep import asleep
from veche.cli.disagree import disagree
from veche.cli.heads import heads
from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

experts = typer.Typer(
    name="experts",
    help="See which experts spoke, for which voice.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

RunArgument = Annotated[
    Path, typer.Argument(help="A run's folder (veche ask --out), or its routing.safetensors.")
]


@experts.command()
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print each voice's load, entropy and dead experts, and how far voices overlap."""
    from veche.experts.summary import summarise

    summary = summarise(_routing(run))
    if as_json:
        print_json(summary)
    else:
        show_summary(summary)


@experts.command()
def report(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="The PNG to write.", show_default="experts.png in RUN")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a layer × expert heatmap of each voice, and the overlap of voices, as a PNG."""
    from veche.council.voices import default_voices
    from veche.experts.plots import plot_routing
    from veche.experts.summary import summarise

    language = chosen_language(lang)
    routing = _routing(run)
    picture = out or (run if run.is_dir() else run.parent) / "experts.png"
    titles = {voice.name: voice.titles[language] for voice in default_voices()}
    plot_routing(picture, routing, titles=titles, language=language)
    if as_json:
        print_json({"picture": str(picture), **summarise(routing)})
    else:
        stdout.print(str(picture), markup=False)


for _command in (heads, asleep, disagree):
    experts.command()(_command)


def show_summary(summary: dict[str, Any]) -> None:
    """Print a summary for people."""
    from rich.table import Table

    voices = summary["voices"]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for voice in voices:
        table.add_column(voice["name"], justify="right")
    for key in [key for key in voices[0] if key != "name"]:
        table.add_row(key, *(_cell(voice[key]) for voice in voices))
    for voice, row in zip(voices, summary["overlap"], strict=True):
        table.add_row(f"overlap with {voice['name']}", *(_cell(value) for value in row))
    stdout.print(table)
    stdout.print(f"overlap by chance: {summary['null_overlap']:.3f}")


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _routing(run: Path) -> Any:
    from veche.core.errors import InputError
    from veche.experts.store import FILE_NAME, load_routing

    path = run / FILE_NAME if run.is_dir() else run
    routing = load_routing(path)
    if not any(len(routed.expert_ids) for routed in routing.values()):
        raise InputError(
            f"{path} holds no routing: the model that was asked has no experts, or said nothing",
            hint="ask a mixture-of-experts model",
        )
    return routing
