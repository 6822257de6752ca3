"""`veche verify`: is the grown model the model that was promised?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout

if TYPE_CHECKING:
    from veche.surgery.verification.verify import Verification


def verify(
    source: Annotated[Path, typer.Argument(help="The checkpoint folder that was grown.")],
    target: Annotated[Path, typer.Argument(help="The folder that veche build made of it.")],
    plan: Annotated[
        Path | None, typer.Option(help="The plan.", show_default="the one in TARGET")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Text to measure on.", show_default="half of Python's own help texts"),
    ] = None,
    num_windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of text.")] = 4,
    window_tokens: Annotated[int, typer.Option(min=16, help="Tokens in each window.")] = 512,
    out: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a grown model: the exact part against the noise floor, the rest on text."""
    from veche.core.errors import VerificationError
    from veche.core.extras import require_extra
    from veche.core.files import read_text, write_json
    from veche.planning.plan import read_plan

    require_extra("model")
    from veche.surgery.carving.calibration import heldout_text
    from veche.surgery.names import PLAN_NAME
    from veche.surgery.verification.verify import VerifySettings
    from veche.surgery.verification.verify import verify as measure

    figures = measure(
        source,
        target,
        read_plan(plan or target / PLAN_NAME),
        heldout_text() if text is None else read_text(text),
        settings=VerifySettings(num_windows=num_windows, window_tokens=window_tokens),
        progress=TerminalProgress(),
    )
    if out is not None:
        write_json(out, figures.as_dict())
    if as_json:
        print_json(figures.as_dict())
    else:
        show_verification(figures)
    if not figures.exact.passed and as_json:
        raise typer.Exit(VerificationError.exit_code)
    if not figures.exact.passed:
        raise VerificationError(
            f"{target} is not the same function as {source}: the exact part failed",
            hint="build it again; if that does not help, please report it",
        )


def show_verification(figures: "Verification") -> None:
    """Print the figures for people."""
    from rich.table import Table

    exact, whole = figures.exact, figures.whole
    stdout.print(
        f"exact part: KL {exact.kl:.2e}, noise floor {exact.floor_kl:.2e}; "
        f"float32 max|Δlogit| {exact.max_abs_logit_diff:.2e} at a logit scale of "
        f"{exact.logit_scale:.3g}: {'passed' if exact.passed else 'FAILED'}"
    )
    stdout.print(
        f"whole recipe: NLL {whole.nll_source:.3f} → {whole.nll_target:.3f}, KL {whole.kl:.3f}, "
        f"same next token {whole.top1_agreement:.1%} ({figures.num_tokens} tokens)"
    )
    table = Table("dial alone", "value", "ΔNLL", "KL", "same next token", show_edge=False)
    for dial in figures.dials:
        value = dial.value["factor"] if isinstance(dial.value, dict) else dial.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        shown = f"{value:g}" if is_number else str(value)
        table.add_row(
            dial.name, shown, f"{dial.nll_delta:+.3f}", f"{dial.kl:.3f}",
            f"{dial.top1_agreement:.1%}",
        )  # fmt: skip
    stdout.print(table)
