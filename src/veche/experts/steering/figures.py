"""What is measured of a steering, in nats a token unless said otherwise; intervals are of 95 %."""

from dataclasses import asdict, dataclass
from typing import Any

from veche.experts.bootstrap import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What steering does to held-out texts of both sets.

    Attributes:
        nll_for: change of the NLL of texts to steer for.
        nll_against: change of the NLL of texts to steer against.
        preference: nll_against − nll_for; above 0 it leans towards the texts to steer for.
        favoured_rate: change of the share of tokens for which a favoured expert is active; None
            where none is favoured.
        muted_rate: the same of muted experts.
    """

    nll_for: Interval
    nll_against: Interval
    preference: Interval
    favoured_rate: Interval | None
    muted_rate: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """What steering does to text that has nothing to do with it.

    Attributes:
        nll: change of the NLL.
        agreement: share of positions where the likeliest next token stays the same.
        kl: KL(unsteered ‖ steered) of the next token.
    """

    nll: Interval
    agreement: Interval
    kl: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class StrengthFigures:
    """What one strength does."""

    strength: float
    effect: Effect
    collateral: Collateral


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a steering does at several strengths.

    Attributes:
        num_for: held-out texts to steer for.
        num_against: held-out texts to steer against.
        num_neutral: neutral pieces.
        nll_for: of the unsteered model.
        nll_against: of the unsteered model.
        nll_neutral: of the unsteered model.
        floor: of a strength of a thousandth of a nat. A router that leaves ties (a carved model's
            does) answers otherwise when they are broken otherwise: no figure below means anything.
        rows: for each strength.
    """

    num_for: int
    num_against: int
    num_neutral: int
    nll_for: Interval
    nll_against: Interval
    nll_neutral: Interval
    floor: StrengthFigures
    rows: tuple[StrengthFigures, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what `veche steer evaluate --json` prints of it."""
        return asdict(self)
