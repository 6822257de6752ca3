"""What was measured of one setting, window by window."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Context = Literal["short", "long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFigures:
    """One context's predictions, a mean for each of W windows.

    Attributes:
        nll: of the setting, nats a token.
        kl: KL(base‖setting), nats a token.
        same: share of tokens after which both would choose the same next token greedily.
        ece: expected calibration error of the setting, over all windows.
        experts: adaptive only: mean experts a token, over all tokens of the window and all layers.
    """

    nll: tuple[float, ...]
    kl: tuple[float, ...]
    same: tuple[float, ...]
    ece: float
    experts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingFigures:
    """One setting, measured.

    Attributes:
        value: of the dial.
        contexts: the predictions in each context.
        base_s: seconds of decode in each paired round, with the checkpoint's own setting.
        turned_s: seconds with this one; both empty where the speed cannot differ.
        scale: adaptive only: the factor of exp(H).
    """

    value: float
    contexts: Mapping[Context, WindowFigures]
    base_s: tuple[float, ...] = ()
    turned_s: tuple[float, ...] = ()
    scale: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def figures_of(raw: Mapping[str, Any]) -> SettingFigures:
    """Return what `as_dict` gave.

    Raises:
        KeyError: a key is missing.
        TypeError: a value is of another kind.
    """
    by_window = ("nll", "kl", "same", "experts")
    return SettingFigures(
        value=float(raw["value"]),
        contexts={
            name: WindowFigures(
                **{key: tuple(each[key]) for key in by_window}, ece=float(each["ece"])
            )
            for name, each in raw["contexts"].items()
        },
        base_s=tuple(raw["base_s"]),
        turned_s=tuple(raw["turned_s"]),
        scale=raw["scale"],
    )
