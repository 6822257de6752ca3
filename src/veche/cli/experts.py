"""`veche experts`: which experts spoke, for which voice, text or kind of token."""

from pathlib import Path
from typing import Annotated, Any

import typer

from veche.cli.asleep import asleep
from veche.cli.disagree import disagree
from veche.cli.experts_record import record
from veche.cli.experts_view import show_comparison, show_summary
from veche.cli.experts_watch import watch
from veche.cli.heads import heads
from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
    stdout,
)

experts = typer.Typer(
    name="experts",
    help="See which experts spoke, for which voice, text or kind of token.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for _command in (record, watch, heads, asleep, disagree):
    experts.command()(_command)

RunArgument = Annotated[
    Path,
    typer.Argument(
        help="A recording (veche experts record), a run's folder (veche ask --out), or a file."
    ),
]


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
    from veche.experts.layer_plots import layers_png, specialisation_png
    from veche.experts.plots import voices_png
    from veche.experts.report import recording_page
    from veche.roles.registry import Registry

    language = chosen_language(lang)
    page = out or (run if run.is_dir() else run.parent) / "experts.html"
    summary, recording, axes = _summarised(run, grown)
    names = Registry().titles(language)
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
    grown: Annotated[
        Path | None,
        typer.Option(help="The grown model of SECOND: read its experts as those they copy."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="An HTML page to write, with a PNG beside it.")
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two recordings: other roles, other prompts, a model before and after a change."""
    from veche.experts.compare import compare as compare_recordings
    from veche.experts.folding import folded
    from veche.experts.growth import new_capacity
    from veche.experts.layer_plots import comparison_png
    from veche.experts.report import comparison_page
    from veche.experts.summary import comparison_summary

    language = chosen_language(lang)
    later = _recording(second, second_voice)
    if grown is not None:
        later = folded(later, new_capacity(grown))
    found = compare_recordings(_recording(first, first_voice), later)
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
    axes = specialisation(recording, progress=TerminalProgress())
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
    from veche.core.files import write_together

    if page.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{page} is no name of a page", hint=f"--out {page.with_suffix('.html')}")
    paths = {name: page.with_name(f"{page.stem}-{name}.png") for name in pictures}
    if page.is_dir():
        raise OutputError(f"{page} is a folder", hint="name a file: --out PAGE.html")
    write_together({page: html, **{path: pictures[name] for name, path in paths.items()}})
    return {"page": str(page), "pictures": {name: str(path) for name, path in paths.items()}}
