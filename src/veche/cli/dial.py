"""`veche dial`: what a setting that moves no weight does to a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import (
    JsonOption,
    LanguageOption,
    TerminalProgress,
    chosen_language,
    print_json,
)
from veche.cli.verify import DeviceOption

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.experts.dial.points import Points


def dial(
    name: Annotated[
        str,
        typer.Argument(help="top_k, rope_theta, yarn, temperature, or adaptive."),
    ],
    model: Annotated[Path, typer.Option(help="The model folder; only read.")],
    values: Annotated[
        str | None,
        typer.Argument(
            help="a..b, a..b:step, or values with commas; adaptive: mean experts a token.",
            show_default="a few, with their reason",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Text to measure on.", show_default="half of Python's own help texts"),
    ] = None,
    num_windows: Annotated[
        int, typer.Option("--windows", min=2, help="Windows of text, which intervals resample.")
    ] = 16,
    short_tokens: Annotated[int, typer.Option(min=16, help="Tokens of the short context.")] = 256,
    long_tokens: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Tokens of the long context.",
            show_default="1024, or what model and text allow",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Paired rounds of the clock; 0 leaves out the speed.")
    ] = 5,
    device: Annotated[
        DeviceOption, typer.Option(help="Where the model runs; auto: CUDA where there is a card.")
    ] = DeviceOption.AUTO,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for dial-NAME.json and dial-NAME.png.", show_default=False),
    ] = None,
    lang: LanguageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn one dial through its values, and measure answers and speed against the checkpoint's own.

    Settings that are finished are kept: an interrupted command goes on where it was.
    """
    from veche.core.extras import require_extra
    from veche.core.files import read_text, write_json

    language = chosen_language(lang)
    for extra in ("model", "plots"):
        require_extra(extra)
    points = _points(name, values, model, language)
    given = None if text is None else read_text(text)
    from veche.experts.dial.dial import DialSettings, turn
    from veche.experts.dial.picture import plot_dial
    from veche.surgery.carving.calibration import heldout_text

    report = turn(
        model,
        points,
        heldout_text() if given is None else given,
        settings=DialSettings(
            num_windows=num_windows,
            short_tokens=short_tokens,
            long_tokens=long_tokens,
            rounds=rounds,
            device=device.value,
        ),
        progress=TerminalProgress(),
    )
    picture = (out or Path(report.folder)) / f"dial-{name}.png"
    plot_dial(picture, report, language=language)
    result = {**report.as_dict(), "picture": str(picture)}
    if out is not None:
        write_json(out / f"dial-{name}.json", result)
    if as_json:
        print_json(result)
    else:
        from veche.cli.dial_view import show_dial

        show_dial(report, picture, language)


def _points(name: str, values: str | None, model: Path, language: "Language") -> "Points":
    """Return what is to be measured; what is said of it comes before the work begins."""
    from veche.checkpoint.config import read_config, spec_of
    from veche.experts.dial.points import chosen_points

    points = chosen_points(name, values, spec_of(read_config(model)), language=language)
    if points.reason:
        listed = ", ".join(f"{value:g}" for value in points.values)
        TerminalProgress().say(f"{name} {listed}: {points.reason}")
    return points
