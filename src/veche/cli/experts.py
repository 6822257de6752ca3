"""`veche experts`: which experts spoke, for which voice, text or kind of token."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from veche.cli.experts_view import show_comparison, show_recorded, show_summary
from veche.cli.experts_watch import watch
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stdout,
)
from veche.core.progress import Silent

experts = typer.Typer(
    name="experts",
    help="See which experts spoke, for which voice, text or kind of token.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
experts.command()(watch)

RunArgument = Annotated[
    Path,
    typer.Argument(
        help="A recording (veche experts record), a run's folder (veche ask --out), or a file."
    ),
]
EngineOption = Annotated[str, typer.Option(help="The engine that runs the model.")]


@experts.command()
def record(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    input_file: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A prompt a line; or JSONL with messages, prompt or text, and labels.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the recording, new or to go on with.")],
    kind: Annotated[
        Literal["prompts", "texts"],
        typer.Option("--as", help="What a plain file holds: prompts to answer, or texts to read."),
    ] = "prompts",
    text_field: Annotated[str, typer.Option(help="The JSONL field that is text.")] = "text",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens decoded for a prompt without an answer.")
    ] = 64,
    window: Annotated[
        int, typer.Option(min=16, help="Longer texts are read in pieces of so many tokens.")
    ] = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many documents only.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the answers; 0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the answers.")] = 0,
    weights: Annotated[
        bool, typer.Option("--weights", help="Keep routing weights: thrice the size.")
    ] = False,
    router_logits: Annotated[
        bool,
        typer.Option("--router-logits", help="Keep every expert's logit: 2 B an expert a token."),
    ] = False,
    engine: EngineOption = "transformers",
    as_json: JsonOption = False,
) -> None:
    """Record where the tokens of prompts, texts or dialogues are sent; run again to go on."""
    from veche.core.errors import UnsupportedError
    from veche.experts.identity import source_of
    from veche.experts.inputs import read_items
    from veche.experts.record import RecordSettings, require_readable
    from veche.experts.record import record as record_into
    from veche.experts.vocabulary import vocabulary_of
    from veche.plugins.registry import load

    items = read_items(input_file, kind=kind, text_field=text_field)[:limit]
    settings = RecordSettings(
        max_tokens=max_tokens,
        window_tokens=window,
        weights=weights,
        router_logits=router_logits,
        seed=seed,
        temperature=temperature,
    )
    progress = Silent() if as_json else TerminalProgress()
    source = source_of(model, progress=progress)
    if not source.layers and source.identity and Path(model).is_dir():
        raise UnsupportedError(
            f"{model} is a dense model: it has no experts to see",
            hint=f"carve it into experts: veche carve {model} --out carved",
        )
    opened = load("engines", engine)(model)
    require_readable(opened, items)
    done = record_into(
        opened,
        items,
        out,
        source=source,
        settings=settings,
        vocabulary=vocabulary_of(Path(model)),
        progress=progress,
    )
    if as_json:
        print_json({"recording": str(out), **done.as_dict()})
    else:
        show_recorded(out, done)


@experts.command()
def show(
    run: RunArgument,
    grown: Annotated[
        Path | None,
        typer.Option(help="The grown model that was recorded: are its new experts asleep?"),
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print load, entropy, dead experts, overlap of voices, and who specialises beyond chance."""
    summary, _, _ = _summarised(run, grown)
    if as_json:
        print_json(summary)
    else:
        show_summary(summary, chosen_language(lang))


@experts.command()
def report(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML page to write.", show_default="experts.html in RUN"),
    ] = None,
    grown: Annotated[
        Path | None,
        typer.Option(help="The grown model that was recorded: are its new experts asleep?"),
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what `show` says, with pictures, as one HTML page; the pictures as PNG beside it."""
    from veche.council.voices import default_voices
    from veche.experts.layer_plots import layers_png, specialisation_png
    from veche.experts.plots import voices_png
    from veche.experts.report import recording_page

    language = chosen_language(lang)
    page = out or (run if run.is_dir() else run.parent) / "experts.html"
    summary, recording, axes = _summarised(run, grown)
    names = {voice.name: voice.titles[language] for voice in default_voices()}
    pictures = {
        "voices": voices_png(recording, names, language),
        "layers": layers_png(recording, names, language),
    }
    if (picture := specialisation_png(recording, axes, language)) is not None:
        pictures["specialisation"] = picture
    html = recording_page(summary, names=names, pictures=pictures, language=language)
    written = _write_page(page, html, pictures)
    if as_json:
        print_json({**written, **summary})
    else:
        stdout.print(str(page), markup=False)


@experts.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A recording, a run's folder, or a file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    first_voice: Annotated[
        str | None, typer.Option(help="Of FIRST only this voice.", show_default="all")
    ] = None,
    second_voice: Annotated[
        str | None, typer.Option(help="Of SECOND only this voice.", show_default="all")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="An HTML page to write, with a PNG beside it.")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two recordings: other roles, other prompts, a model before and after a change."""
    from veche.experts.compare import compare as compare_recordings
    from veche.experts.layer_plots import comparison_png
    from veche.experts.report import comparison_page
    from veche.experts.summary import comparison_summary

    language = chosen_language(lang)
    found = compare_recordings(_recording(first, first_voice), _recording(second, second_voice))
    summary = comparison_summary(found)
    titles = _title(first, first_voice), _title(second, second_voice)
    written = {}
    if out is not None:
        picture = comparison_png(found, language)
        html = comparison_page(summary, titles=titles, picture=picture, language=language)
        written = _write_page(out, html, {"comparison": picture})
    if as_json:
        print_json({**written, **summary})
    else:
        show_comparison(summary, titles, language)


def _summarised(run: Path, grown: Path | None) -> tuple[dict[str, Any], Any, Any]:
    """Return all figures of a recording, the recording, and the axes of its tests."""
    from veche.experts.asleep import new_experts
    from veche.experts.growth import new_capacity
    from veche.experts.specialisation import specialisation
    from veche.experts.summary import asleep_summary, axes_summary, summarise

    recording = _recording(run)
    axes = specialisation(recording)
    summary = {**summarise(recording), "axes": axes_summary(recording, axes)}
    if grown is not None:
        summary["asleep"] = asleep_summary(new_experts(recording, new_capacity(grown)))
    return summary, recording, axes


def _recording(run: Path, voice: str | None = None) -> Any:
    from veche.core.errors import InputError
    from veche.experts.store import read_recording

    found = read_recording(run)
    if voice is not None:
        if voice not in found.voices:
            raise InputError(
                f"{run} has no voice {voice!r}", hint=f"it has: {', '.join(found.voices)}"
            )
        found = found.taken(lambda record: record.voice == voice)
    if not found.num_tokens:
        raise InputError(
            f"{run} holds no routing: the model that was asked has no experts, or said nothing",
            hint="ask a mixture-of-experts model",
        )
    return found


def _title(run: Path, voice: str | None) -> str:
    return str(run) if voice is None else f"{run}: {voice}"


def _write_page(page: Path, html: str, pictures: dict[str, bytes]) -> dict[str, Any]:
    """Write a page, and its pictures as PNG beside it; return their paths."""
    from veche.core.errors import OutputError
    from veche.core.files import atomic_writer, write_text

    if page.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{page} is no name of a page", hint=f"--out {page.with_suffix('.html')}")
    paths = {name: page.with_name(f"{page.stem}-{name}.png") for name in pictures}
    for name, path in paths.items():
        with atomic_writer(path) as file:
            file.write(pictures[name])
    write_text(page, html)
    return {"page": str(page), "pictures": {name: str(path) for name, path in paths.items()}}
