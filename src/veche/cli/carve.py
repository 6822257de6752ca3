"""`veche carve`: a dense model becomes a mixture of experts, without training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout

if TYPE_CHECKING:
    from veche.surgery.carving.carve import CarveReport


def carve(
    source: Annotated[
        Path, typer.Argument(help="A folder with a dense llama, qwen2 or qwen3; only read.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    num_experts: Annotated[int, typer.Option("--experts", min=2, help="Experts a layer.")] = 16,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Experts a token.", show_default="all; with --refit the fit's"),
    ] = None,
    fit_top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Experts a token that routers are fitted for.", show_default="¾"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Calibration text.", show_default="half of Python's own help texts"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Calibration tokens.", show_default="32768")
    ] = None,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Refit `down` for fewer experts; with all it is not exact."),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of every random number.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Split every dense MLP into experts and fit their routers on a text, without training."""
    from veche.core.extras import require_extra
    from veche.core.files import read_text

    require_extra("model")
    from veche.surgery.carving.carve import CarveSettings
    from veche.surgery.carving.carve import carve as carve_model

    report = carve_model(
        source,
        out,
        CarveSettings(
            num_experts=num_experts,
            num_experts_per_tok=top_k,
            fit_experts_per_tok=fit_top_k,
            calibration_tokens=tokens or CarveSettings().calibration_tokens,
            seed=seed,
            refit=refit,
        ),
        text=None if text is None else read_text(text),
        progress=TerminalProgress(),
    )
    if as_json:
        print_json(report.as_dict())
    else:
        show_carving(report)


def show_carving(report: "CarveReport") -> None:
    """Print the report for people."""
    stdout.print(f"{report.target} ({report.seconds:.0f} s)", markup=False)
    if report.equality is not None:
        equal = report.equality
        dense = "the dense model"
        if report.settings.refit:
            dense = "the dense model with the refitted `down`"
        stdout.print(
            f"with all experts it is {dense}: KL {equal.kl:.1e}, max|Δlogit| "
            f"{equal.max_abs_logit_diff:.1e} at a logit scale of {equal.logit_scale:.3g}"
        )
    kept = sum(report.kept_energy) / len(report.kept_energy)
    stdout.print(
        f"with {report.settings.fit_top_k} of {report.settings.num_experts}: the router keeps "
        f"{kept:.1%} of the layers' output energy"
    )
