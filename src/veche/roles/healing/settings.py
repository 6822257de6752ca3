"""How a model is healed: few dials, and for each that was not given a value with its reason."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from veche.core.errors import InputError
from veche.roles.training.settings import OPTIMIZERS, OptimizerName, require_one_of

Part = Literal["routers", "experts", "attention", "new"]
PARTS: tuple[Part, ...] = get_args(Part)
DEFAULT_MINUTES = 15.0
_RATES: dict[OptimizerName, float] = {"adamw": 1e-3, "loft": 2e-4}
_MOST_RANK = 1024
_MOST_RATE = 1e30
"""Beyond it, what AdamW multiplies by is no number of single precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealSettings:
    """What may be chosen; None is computed.

    Attributes:
        minutes: how long training may take on this machine: the number of steps is set by it once,
            after a few steps were timed. None, with `steps` None, is DEFAULT_MINUTES.
        steps: optimiser steps instead.
        train: what is trained; None is what the change has damaged, see `Lesson`.
        optimizer: of attention's low-rank factors: "adamw", or "loft" (arXiv 2505.21289). All else
            is trained by AdamW.
        rank: of these factors.
        learning_rate: the highest, of these factors; None is the optimiser's own.
        experts_rate: the highest of the experts' `down`, and of new units.
        routers_rate: the highest of routers, in parts of the size of their weights.
        fit_tokens: text on which routers and experts are fitted layer by layer first; 0 leaves
            that out.
        batch: windows of a step.
        window_tokens: tokens of a window.
        heldout_windows: windows that are only measured on.
        heldout_tokens: tokens of each.
        generate_tokens: how much text the teacher writes itself, to be learnt from besides.
        save_every: steps between checkpoints.
        seed: of every random choice.
    """

    minutes: float | None = None
    steps: int | None = None
    train: tuple[Part, ...] | None = None
    optimizer: OptimizerName = "adamw"
    rank: int = 16
    learning_rate: float | None = None
    experts_rate: float = 1e-4
    routers_rate: float = 3e-3
    fit_tokens: int = 32_768
    batch: int = 8
    window_tokens: int = 128
    heldout_windows: int = 16
    heldout_tokens: int = 512
    generate_tokens: int = 0
    save_every: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            InputError: names the setting.
        """
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        if self.minutes is not None and self.steps is not None:
            raise InputError("minutes and steps were both given", hint="give one of them")
        least = {
            "batch": 1, "window_tokens": 8, "rank": 1, "heldout_windows": 2, "heldout_tokens": 8,
            "save_every": 1, "fit_tokens": 0, "generate_tokens": 0, "steps": 0, "minutes": 0,
            "learning_rate": 0, "experts_rate": 0, "routers_rate": 0,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and not smallest <= value < float("inf"):
                raise InputError(f"{name} is {value}, and must be at least {smallest}")
        for name in ("learning_rate", "experts_rate", "routers_rate"):
            if (getattr(self, name) or 0) > _MOST_RATE:
                raise InputError(
                    f"{name} is {getattr(self, name)}, and may be {_MOST_RATE:g} at most",
                    hint="leave it out: a usual one is then taken",
                )
        if self.rank > _MOST_RANK:
            raise InputError(f"rank {self.rank} is no low rank: at most {_MOST_RANK}")

    @property
    def factor_rate(self) -> float:
        """The highest learning rate of attention's factors."""
        return _RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)
