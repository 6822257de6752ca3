"""`veche operations`: what surgery can do exactly, and the proof of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from veche.cli.terminal import JsonOption, TerminalProgress, print_json, stdout

if TYPE_CHECKING:
    from veche.surgery.operations.operation import Operation
    from veche.surgery.verification.proof import Proof


def operations(
    is_proof: Annotated[
        bool,
        typer.Option("--prove", help="Try each on tiny random models of every family."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the operations that grow a model: law, source, when each is feasible."""
    if is_proof:
        _prove(as_json=as_json)
        return
    from rich.padding import Padding
    from rich.text import Text

    from veche.plugins.registry import load, names

    found = [load("operations", name) for name in names("operations")]
    if as_json:
        print_json({"operations": [_as_dict(operation) for operation in found]})
        return
    for operation in found:
        name = Text(operation.name, style="bold")
        stdout.print(name, Text(operation.reference_url), sep="  ")
        for label, text in (("law", operation.law), ("feasible", operation.feasibility)):
            stdout.print(Padding(Text(f"{label}: {text}"), (0, 0, 0, 2)))


def _as_dict(operation: "Operation") -> dict[str, object]:
    return {
        "name": operation.name,
        "law": operation.law,
        "reference_url": operation.reference_url,
        "feasibility": operation.feasibility,
        "tensors": sorted(operation.transforms),
    }


def _prove(*, as_json: bool) -> None:
    """Run the proof and print its table; fail where a row does not pass."""
    from veche.core.errors import VerificationError
    from veche.core.extras import require_extra

    require_extra("model")
    from veche.surgery.verification.proof import prove

    proofs = list(prove(TerminalProgress()))
    if as_json:
        print_json({"proofs": [proof.as_dict() for proof in proofs]})
    else:
        _show(proofs)
    failed = [proof for proof in proofs if not proof.passed]
    if failed and as_json:
        raise typer.Exit(VerificationError.exit_code)
    if failed:
        raise VerificationError(
            f"{len(failed)} of {len(proofs)} operations are not exact, first "
            f"{failed[0].operation} in {failed[0].family}, mode {failed[0].mode}",
            hint="please report it, with your versions of torch and transformers",
        )


def _show(proofs: "list[Proof]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("operation", "family", "mode", "Δ, fp32", "KL, bf16", "floor", ""):
        table.add_column(name, no_wrap=True)
    for proof in proofs:
        head = (proof.operation, proof.family, proof.mode)
        if proof.refusal:
            table.add_row(*head, "refused", "", "", proof.refusal)
        else:
            table.add_row(
                *head,
                f"{proof.max_abs_logit_diff:.1e}",
                f"{proof.kl_bf16:.1e}",
                f"{proof.floor_bf16:.1e}",
                "exact" if proof.passed else "FAILED",
            )
    stdout.print(table)
    num_exact = sum(proof.passed and not proof.refusal for proof in proofs)
    num_refused = sum(bool(proof.refusal) for proof in proofs)
    stdout.print("Δ: the largest difference of two logits, in parts of the largest logit")
    stdout.print(
        f"{num_exact} exact, {num_refused} refused, "
        f"{len(proofs) - num_exact - num_refused} failed; bars: 1e-5 of the largest logit in "
        "float32, the noise floor plus two standard errors in bf16"
    )
