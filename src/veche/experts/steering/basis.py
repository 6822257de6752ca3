"""A steering that was found: which experts of which model, and how it came to be.

Shapes: L layers that route, E experts.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.engines.protocol import Steering
from veche.experts.recording import Source

_MOST_NATS = 1e4
"""No engine takes a larger bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How a steering was found.

    Attributes:
        towards: what the texts to steer for were called.
        away_from: what the texts to steer against were called.
        num_for: texts to steer for that were read.
        num_against: texts to steer against that were read.
        num_significant: experts that differed at a false discovery rate of 5 %.
        seed: of resamples, permutations and held-out texts.
        used_texts: SHA-256 of every text that was read: a judge must not see them again.
    """

    towards: str
    away_from: str
    num_for: int
    num_against: int
    num_significant: int
    seed: int
    used_texts: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringBasis:
    """What a strength of one nat adds to each router's logits; part of a role.

    Attributes:
        basis: [L, E], within [−1, 1]; positive experts are favoured, negative ones muted.
        source: the model whose experts these are, and the number in it of each of the L layers.
        finding: how it was found.
    """

    basis: NDArray[np.float32]
    source: Source
    finding: Finding

    def __post_init__(self) -> None:
        """Refuse a basis that contradicts itself.

        Raises:
            InputError: its shape, its layers or its values are impossible.
        """
        if self.basis.ndim != 2 or len(self.layers) != len(self.basis):
            raise InputError(
                f"a steering of {len(self.layers)} layers has the shape {list(self.basis.shape)}"
            )
        if list(self.layers) != sorted(set(self.layers)) or min(self.layers, default=0) < 0:
            raise InputError(f"the layers of a steering are out of order: {list(self.layers)}")
        if not (np.abs(self.basis) <= 1).all() or not self.basis.any():
            raise InputError("the values of a steering must lie within ±1, and not all be 0")

    @property
    def layers(self) -> tuple[int, ...]:
        """For each of the L rows the number of its layer in the model."""
        return self.source.layers

    @property
    def num_experts(self) -> int:
        """E."""
        return int(self.basis.shape[1])

    def at(self, strength: float, layers: Collection[int] | None = None) -> Steering:
        """Return the bias of a strength, in nats: strength · basis.

        Args:
            strength: of the expert that differs most; negative steers the other way.
            layers: model layers to act on; all by default.

        Raises:
            InputError: none of the layers is steered, or the strength is no number within
                ±10000.
        """
        if not abs(strength) <= _MOST_NATS:
            raise InputError(
                f"a strength of {strength:g} nats is not within ±{_MOST_NATS:g}",
                hint="±10000 already means always and never; begin with 0.5 to 4",
            )
        is_meant = np.array([layers is None or layer in layers for layer in self.layers])
        if not (self.basis.any(1) & is_meant).any():
            raise InputError(
                "nothing is steered"
                if layers is None
                else f"no steered expert is in the layers {_shown(layers)}",
                hint=f"steered layers: {self.steered_layers()}",
            )
        return Steering(bias=np.float32(strength) * self.basis * is_meant[:, None])

    def steered_layers(self) -> list[int]:
        """Return the model layers in which an expert is favoured or muted."""
        return [layer for layer, row in zip(self.layers, self.basis, strict=True) if row.any()]

    def require_fit(self, layers: tuple[int, ...], num_experts: int, where: str) -> None:
        """Refuse a model whose routers this steering does not fit.

        Args:
            layers: the model's layers that route.
            num_experts: that each chooses from.
            where: what to call the model.

        Raises:
            InputError: another number of experts, or other layers.
        """
        if (self.layers, self.num_experts) != (layers, num_experts):
            raise InputError(
                f"this steering was found with {self.source.model}: {len(self.layers)} layers that "
                f"route, {self.num_experts} experts; {where} has {len(layers)} layers that route "
                f"and {num_experts} experts",
                hint="find one for this model: veche steer find",
            )


def _shown(layers: Collection[int]) -> str:
    if isinstance(layers, range):
        return f"{layers.start}-{layers.stop - 1}"
    return ", ".join(map(str, layers))
