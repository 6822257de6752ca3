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
    from veche.experts.dial.report import DialReport


NameArgument = Annotated[
    str, typer.Argument(help="top_k, rope_theta, yarn, temperature, or adaptive.")
]
ValuesArgument = Annotated[
    str | None,
    typer.Argument(
        help="a..b, a..b:step, or values with commas; adaptive: mean experts a token.",
        show_default="a few, with their reason",
    ),
]
TextOption = Annotated[
    Path | None,
    typer.Option(help="Text to measure on.", show_default="half of Python's own help texts"),
]
WindowsOption = Annotated[
    int, typer.Option("--windows", min=2, help="Windows of text, which intervals resample.")
]
LongOption = Annotated[
    int | None,
    typer.Option(
        min=16,
        help="Tokens of the long context.",
        show_default="1024, or what model and text allow",
    ),
]


def dial(
    name: NameArgument,
    model: Annotated[Path, typer.Option(help="The model folder; only read.")],
    values: ValuesArgument = None,
    text: TextOption = None,
    num_windows: WindowsOption = 16,
    short_tokens: Annotated[int, typer.Option(min=16, help="Tokens of the short context.")] = 256,
    long_tokens: LongOption = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Paired rounds of the clock; 0 leaves out the speed.")
    ] = 5,
    spread: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="adaptive: how far a token's experts may be from the mean.",
            show_default="2",
        ),
    ] = None,
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
    from veche.core.files import require_apart

    language = chosen_language(lang)
    if out is not None:
        require_apart(out, model)
    points = _points(name, values, model, language)
    _require_adaptive(name, spread)
    amount = (num_windows, short_tokens, long_tokens, rounds, spread)
    report = _measured(model, points, text, amount, device)
    _finish(report, out, language, as_json=as_json)


def _require_adaptive(name: str, spread: int | None) -> None:
    from veche.core.errors import InputError

    if spread is not None and name != "adaptive":
        raise InputError(
            f"--spread is of the dial adaptive, not of {name}", hint="leave --spread out"
        )


def _measured(
    model: Path,
    points: "Points",
    text: Path | None,
    amount: tuple[int, int, int | None, int, int | None],
    device: DeviceOption,
) -> "DialReport":
    from veche.core.extras import require_extra
    from veche.core.files import read_text

    for extra in ("model", "plots"):
        require_extra(extra)
    given = None if text is None else read_text(text)
    from veche.experts.dial.dial import SPREAD, DialSettings, turn
    from veche.surgery.carving.calibration import heldout_text

    num_windows, short_tokens, long_tokens, rounds, spread = amount
    return turn(
        model,
        points,
        heldout_text() if given is None else given,
        settings=DialSettings(
            num_windows=num_windows,
            short_tokens=short_tokens,
            long_tokens=long_tokens,
            rounds=rounds,
            device=device.value,
            spread=SPREAD if spread is None else spread,
        ),
        progress=TerminalProgress(),
    )


def _finish(report: "DialReport", out: Path | None, language: "Language", *, as_json: bool) -> None:
    """Write the picture and, where asked for, the figures; print them."""
    from veche.cli.dial_view import show_dial
    from veche.core.files import write_json
    from veche.experts.dial.picture import plot_dial

    picture = (out or Path(report.folder)) / f"dial-{report.dial}.png"
    plot_dial(picture, report, language=language)
    result = {**report.as_dict(), "picture": str(picture)}
    if out is not None:
        write_json(out / f"dial-{report.dial}.json", result)
    if as_json:
        print_json(result)
    else:
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
