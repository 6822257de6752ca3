"""The states of a grown model's new parts: awake, silent, twins.

Shapes: n new parts, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.experts.dormancy import AWAKE, SILENT, TWIN
from veche.experts.growth import MlpWidth

States = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStates:
    """The new parts of one layer, each AWAKE, SILENT or TWIN.

    Attributes:
        layer: its number, from 0.
        is_new: the layer itself is new.
        heads: [n] in the order of `head_numbers`.
        head_numbers: of the new query heads.
        experts: [n] in the order of `expert_numbers`.
        expert_numbers: of the new experts.
        units: [E, n] of each width that has new units; E is 1 where there is one MLP.
        first_unit: number of the first new unit of each width.
    """

    layer: int
    is_new: bool
    heads: States
    head_numbers: tuple[int, ...]
    experts: States
    expert_numbers: tuple[int, ...]
    units: Mapping[MlpWidth, States]
    first_unit: Mapping[MlpWidth, int]

    @property
    def awake_heads(self) -> tuple[int, ...]:
        """Numbers of the new heads that are awake."""
        return chosen(self.head_numbers, self.heads == AWAKE)

    @property
    def awake_experts(self) -> tuple[int, ...]:
        """Numbers of the new experts that are awake by their weights."""
        return chosen(self.expert_numbers, self.experts == AWAKE)

    def awake_units(self, width: MlpWidth) -> tuple[tuple[int, int], ...]:
        """Return (expert, unit) of the new units that are awake."""
        first = self.first_unit[width]
        return tuple(
            (int(expert), first + int(unit))
            for expert, unit in np.argwhere(self.units[width] == AWAKE)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; units as counts."""
        return {
            "layer": self.layer,
            "is_new": self.is_new,
            "heads": _named(self.head_numbers, self.heads),
            "experts": _named(self.expert_numbers, self.experts),
            "units": {width: counted(states) for width, states in self.units.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Asleep:
    """What of a grown model is still asleep.

    Attributes:
        mode: how it was grown: zero or split.
        threshold: relative to old parts; see dormancy.THRESHOLD.
        layers: those in which something is new.
    """

    mode: str
    threshold: float
    layers: tuple[LayerStates, ...]

    def totals(self) -> dict[str, dict[str, int]]:
        """Return, for heads, experts and each width of units, how many are new and in which state.

        A kind of which nothing is new is left out.
        """
        states: dict[str, list[States]] = {}
        for layer in self.layers:
            parts = [("heads", layer.heads), ("experts", layer.experts), *layer.units.items()]
            for name, part in parts:
                states.setdefault(name, []).append(part.ravel())
        joined = {name: np.concatenate(parts) for name, parts in states.items()}
        return {name: counted(part) for name, part in joined.items() if part.size}

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "mode": self.mode,
            "threshold": self.threshold,
            "totals": self.totals(),
            "layers": [layer.as_dict() for layer in self.layers],
        }


def counted(states: States) -> dict[str, int]:
    """Return how many parts there are, and how many in each state."""
    return {
        "new": int(states.size),
        "awake": int((states == AWAKE).sum()),
        "silent": int((states == SILENT).sum()),
        "twins": int((states == TWIN).sum()),
    }


def chosen(numbers: tuple[int, ...], is_chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the numbers at which `is_chosen` is true."""
    return tuple(number for number, is_it in zip(numbers, is_chosen, strict=True) if is_it)


def _named(numbers: tuple[int, ...], states: States) -> dict[str, list[int]]:
    return {
        "new": list(numbers),
        "awake": list(chosen(numbers, states == AWAKE)),
        "silent": list(chosen(numbers, states == SILENT)),
        "twins": list(chosen(numbers, states == TWIN)),
    }
