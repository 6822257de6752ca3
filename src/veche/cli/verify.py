"""`veche verify`: is the grown model the model that was promised?"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout

if TYPE_CHECKING:
    from veche.surgery.verification.figures import Verification
    from veche.surgery.verification.hashes import FolderHashes

_MOST_NAMED = 5


class FormOption(StrEnum):
    """How to verify."""

    AUTO = "auto"
    LONG = "long"
    SHORT = "short"


class DeviceOption(StrEnum):
    """Where to verify."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def verify(
    source: Annotated[
        Path,
        typer.Argument(help="The checkpoint folder that was grown; --hashes can do without."),
    ],
    target: Annotated[
        Path | None,
        typer.Argument(help="The folder that veche build made of it.", show_default=False),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="The plan.", show_default="the one in TARGET")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Text to measure on.", show_default="half of Python's own help texts"),
    ] = None,
    num_windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of text.")] = 4,
    window_tokens: Annotated[int, typer.Option(min=16, help="Tokens in each window.")] = 512,
    form: Annotated[
        FormOption,
        typer.Option(help="long: layer by layer; short: whole models; auto: what memory allows."),
    ] = FormOption.AUTO,
    device: Annotated[
        DeviceOption, typer.Option(help="Where the models run; auto: CUDA where there is a card.")
    ] = DeviceOption.AUTO,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Compare the files with veche_hashes.json instead.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Put the figures into TARGET's model card.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a grown model: the exact part against the noise floor, the rest on text."""
    if hashes:
        _check_hashes(source, target, out, as_json=as_json)
        return
    target = _required(target)
    if plan is None:
        _require_built(target)
    figures = _measured(source, target, plan, text, (num_windows, window_tokens), (form, device))
    if card:
        from veche.surgery.verification.card import write_into_card

        write_into_card(target, figures)
    _finish(source, target, figures, out, as_json=as_json)


def _measured(
    source: Path,
    target: Path,
    plan: Path | None,
    text: Path | None,
    amount: tuple[int, int],
    way: tuple[FormOption, DeviceOption],
) -> "Verification":
    from veche.core.extras import require_extra
    from veche.core.files import read_text
    from veche.planning.plan import read_plan

    require_extra("model")
    from veche.surgery.carving.calibration import heldout_text
    from veche.surgery.names import PLAN_NAME
    from veche.surgery.verification.verify import VerifySettings
    from veche.surgery.verification.verify import verify as measure

    return measure(
        source,
        target,
        read_plan(plan or target / PLAN_NAME),
        heldout_text() if text is None else read_text(text),
        settings=VerifySettings(
            num_windows=amount[0],
            window_tokens=amount[1],
            form=way[0].value,
            device=way[1].value,
        ),
        progress=TerminalProgress(),
    )


def _required(target: Path | None) -> Path:
    from veche.core.errors import InputError

    if target is None:
        raise InputError(
            "verify needs two folders: the one that was grown, and the grown one",
            hint="veche verify SOURCE TARGET, or veche verify --hashes TARGET",
        )
    return target


def _require_built(target: Path) -> None:
    from veche.core.errors import InputError
    from veche.surgery.names import PLAN_NAME

    if target.is_dir() and not (target / PLAN_NAME).exists():
        raise InputError(
            f"{target} has no {PLAN_NAME}: veche build did not make it, or has not finished it",
            hint="finish an interrupted build with veche build … --resume; for a model that was "
            "grown by other means give --plan",
        )


def _finish(
    source: Path, target: Path, figures: "Verification", out: Path | None, *, as_json: bool
) -> None:
    from veche.core.errors import VerificationError
    from veche.core.files import write_json

    if out is not None:
        write_json(out, figures.as_dict())
    if as_json:
        print_json(figures.as_dict())
    else:
        show_verification(figures)
    if not figures.passed and as_json:
        raise typer.Exit(VerificationError.exit_code)
    if not figures.passed:
        raise VerificationError(
            f"{target} is not the same function as {source}: {fault(figures)}",
            hint="build it again; if that does not help, please report it",
        )


def fault(figures: "Verification") -> str:
    """Say in one line which layers and tensors are at fault, as far as it is known."""
    parts = []
    if layers := [layer.name for layer in figures.failed_layers]:
        parts.append(f"{_named(layers)} err{'s' if len(layers) == 1 else ''}")
    if figures.not_finite:
        parts.append(f"{_named(figures.not_finite)} holds what is no number")
    if figures.differences:
        changed = [
            f"{each.name} ({each.num_different} of {each.num_elements} elements)"
            for each in figures.differences
        ]
        parts.append(f"not what the plan makes of the source: {_named(changed)}")
    else:
        parts.append(
            "every tensor is what the plan makes of the source, so the plan, an operation of "
            "veche or rounding is at fault"
        )
    if ties := sum(layer.num_near_ties for layer in figures.layers):
        parts.append(f"{ties} near ties of routing were left out of the layers' errors")
    return "; ".join(["the exact part failed" if not figures.exact.passed else "", *parts]).strip(
        "; "
    )


def _named(names: "list[str] | tuple[str, ...]") -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check_hashes(source: Path, target: Path | None, out: Path | None, *, as_json: bool) -> None:
    from veche.core.errors import VerificationError
    from veche.core.files import write_json
    from veche.surgery.verification.hashes import verify_hashes

    given = (source, None) if target is None else (target, source)
    report = verify_hashes(*given, progress=TerminalProgress())
    if out is not None:
        write_json(out, report.as_dict())
    if as_json:
        print_json(report.as_dict())
        if not report.passed:
            raise typer.Exit(VerificationError.exit_code)
        return
    folders = [folder for folder in (report.target, report.source) if folder is not None]
    for folder in folders:
        _show_hashes(folder)
    for folder in folders:
        if not folder.passed:
            files = [*folder.changed, *folder.missing] or list(folder.extra)
            raise VerificationError(
                f"{folder.folder} is not as the build left it: {_named(files)}",
                hint="get these files again, or build the folder again",
            )


def _show_hashes(folder: "FolderHashes") -> None:
    stdout.print(f"{folder.folder}: {len(folder.unchanged)} files unchanged", markup=False)
    for what in ("changed", "missing", "extra"):
        for name in getattr(folder, what):
            stdout.print(f"  {what}: {name}", markup=False)


def show_verification(figures: "Verification") -> None:
    """Print the figures for people."""
    exact, whole = figures.exact, figures.whole
    stdout.print(
        f"exact part: KL {exact.kl:.2e}, noise floor {exact.floor_kl:.2e}; "
        f"float32 max|Δlogit| {exact.max_abs_logit_diff:.2e} at a logit scale of "
        f"{exact.logit_scale:.3g}: {'passed' if exact.passed else 'FAILED'}"
    )
    if figures.layers:
        _show_layers(figures)
    stdout.print(
        f"whole recipe: NLL {whole.nll_source:.3f} → {whole.nll_target:.3f}, KL {whole.kl:.3f}, "
        f"same next token {whole.top1_agreement:.1%} ({figures.num_tokens} tokens)"
    )
    if figures.dials:
        _show_dials(figures)


def _show_dials(figures: "Verification") -> None:
    """Print what each lossy field does alone."""
    from rich.table import Table

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


def _show_layers(figures: "Verification") -> None:
    """Print every layer's errors."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("layer", "source's", "own, fp32", "floor", "stream", "floor", ""):
        table.add_column(name, no_wrap=True)
    for layer in figures.layers:
        table.add_row(
            layer.name.removeprefix("model."),
            layer.source.removeprefix("model.") + (" (new)" if layer.is_new else ""),
            f"{layer.own_error:.1e}", f"{layer.own_floor:.1e}", f"{layer.stream_error:.1e}",
            f"{layer.stream_floor:.1e}", "" if layer.passed else "FAILED",
        )  # fmt: skip
    stdout.print(table)
    stdout.print(
        "own error: given the source's stream, the worst token; stream error: since the first "
        "layer, on average; floor: the source under two attention implementations"
    )
    if unreached := sum(layer.num_unreached_experts for layer in figures.layers):
        stdout.print(
            f"{unreached} experts were reached by no token of the layers' float32 check: "
            "more text, or --hashes, looks at them"
        )
