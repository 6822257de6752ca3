"""Put the figures of a verification into the grown model's card."""

from pathlib import Path

from veche.core.errors import CheckpointError
from veche.core.files import read_text, write_text
from veche.surgery.model_card import VERIFICATION_MARK
from veche.surgery.names import CARD_NAME
from veche.surgery.verification.figures import Verification


def write_into_card(target: Path, figures: Verification) -> None:
    """Replace what stands between the marks of the model card.

    Args:
        target: the grown folder.
        figures: what was measured.

    Raises:
        CheckpointError: the card has no such place.
    """
    path = target / CARD_NAME
    parts = read_text(path).split(VERIFICATION_MARK) if path.is_file() else []
    if len(parts) != 3:
        raise CheckpointError(
            f"{path} has no place for figures, between two lines {VERIFICATION_MARK}",
            hint="build the folder again, or leave out --card",
        )
    parts[1] = f"\n{figures_markdown(figures)}\n"
    write_text(path, VERIFICATION_MARK.join(parts))


def figures_markdown(figures: Verification) -> str:
    """Return the figures as a table, with what they are of."""
    exact, whole = figures.exact, figures.whole
    rows = [
        ("exact part", "passed" if figures.passed else "FAILED"),
        ("KL, under the base's dials", f"{exact.kl:.2e} (noise floor {exact.floor_kl:.2e})"),
        (
            "largest difference of two logits, float32",
            f"{exact.max_abs_logit_diff:.2e} at a logit scale of {exact.logit_scale:.3g}",
        ),
        ("NLL, base → this model", f"{whole.nll_source:.3f} → {whole.nll_target:.3f}"),
        ("KL(base‖this model)", f"{whole.kl:.3g}"),
        ("same next token", f"{whole.top1_agreement:.1%}"),
    ]
    rows += [
        (f"`{dial.name}` alone", f"ΔNLL {dial.nll_delta:+.3f}, KL {dial.kl:.3g}")
        for dial in figures.dials
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    measured = (
        f"Measured on {figures.num_tokens} tokens by the {figures.form} form of `veche verify`; "
        "NLL and KL in nats a token."
    )
    return "\n".join([measured, "", "| figure | value |", "|---|---|", *lines])
