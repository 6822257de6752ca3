"""Everything that `veche heal` shows: the plan of a healing, and what it gave back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from veche import __version__
from veche.roles.healing.lesson import Lesson
from veche.roles.healing.measure import Recovery
from veche.roles.healing.memory import MemoryPlan
from veche.roles.healing.settings import HealSettings, Part

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HealPlan:
    """What would be done.

    Attributes:
        lesson: who is healed towards whom.
        settings: as used.
        parts: what is trained, and how many parameters of each.
        is_fitted: whether routers and experts are fitted layer by layer first.
        train_tokens: of the text that is learnt from.
        heldout_tokens: of the text that is measured on.
        text: where they come from.
        memory: what it needs.
        free_bytes: memory that is free; None where that is unknown.
    """

    lesson: Lesson
    settings: HealSettings
    parts: Mapping[Part, int]
    is_fitted: bool
    train_tokens: int
    heldout_tokens: int
    text: str
    memory: MemoryPlan
    free_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        lesson = self.lesson
        return {
            "student": str(lesson.student),
            "teacher": str(lesson.teacher),
            "dials": dict(lesson.dials),
            "gain": lesson.gain,
            "settings": self.settings.as_dict(),
            "parts": dict(self.parts),
            "is_fitted": self.is_fitted,
            "train_tokens": self.train_tokens,
            "heldout_tokens": self.heldout_tokens,
            "text": self.text,
            "memory": self.memory.as_dict(),
            "free_bytes": self.free_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HealReport:
    """What was done.

    Attributes:
        plan: as above.
        target: the healed folder.
        num_steps: of training.
        losses: KL of each step, nats a token.
        fitted: the same figures with routers and experts fitted, before training; None where
            nothing was fitted.
        recovery: before against healed.
        heldout_windows: windows that were measured on.
        woke: new parts of each kind, by state, before and after; empty where nothing is new.
        seconds: wall time of each stage that this run went through.
    """

    plan: HealPlan
    target: str
    num_steps: int
    losses: tuple[float, ...]
    fitted: Recovery | None
    recovery: Recovery
    heldout_windows: int
    woke: Mapping[str, Mapping[str, Mapping[str, int]]]
    seconds: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "schema": SCHEMA,
            "veche": __version__,
            "target": self.target,
            **self.plan.as_dict(),
            "num_steps": self.num_steps,
            "losses": list(self.losses),
            "fitted": None if self.fitted is None else self.fitted.as_dict(),
            "recovery": self.recovery.as_dict(),
            "heldout_windows": self.heldout_windows,
            "woke": {name: dict(states) for name, states in self.woke.items()},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
