"""One step of LoFT for pairs of factors of one shape.

Shapes: b pairs; R rows and C columns of the factored matrix F Oᵀ; r rank; p = r(r + 1)/2. See
`gradient_scaling` for F and O.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from veche.roles.loft.calibration import calibrated, calibration
from veche.roles.loft.gradient_scaling import damped_gram, projected_square_norms, scaled_gradient
from veche.roles.loft.projected_adam import AdamSettings, advance_moments, direction
from veche.roles.loft.symmetric_square import triangle_size

FactorState = dict[str, Tensor]
STEP, FIRST, SECOND = "step", "exp_avg", "exp_avg_sq"
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
"""Entries of full matrices that are formed at once: on a CPU, what its caches hold."""
_OTHER_BLOCK_ELEMENTS = 1 << 26
_BLOCKS_AT_ONCE = 16
"""Pairs are taken together up to so many blocks: fewer calls, and their state still fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor of a pair, B or A, with its state; rows first: A is seen transposed.

    Attributes:
        param: B [R, r], or A [r, R].
        is_a: which of them it is.
        state: step, exp_avg [R, r] and exp_avg_sq [R, p].
    """

    param: Tensor
    is_a: bool
    state: FactorState

    @property
    def rows(self) -> Tensor:
        """[R, r], a view of the parameter."""
        return self.param.mT if self.is_a else self.param

    @property
    def gradient_rows(self) -> Tensor:
        """[R, r], a view of its gradient."""
        gradient = cast("Tensor", self.param.grad)
        return gradient.mT if self.is_a else gradient


def compute_dtype(param: Tensor) -> torch.dtype:
    """Return the type of a parameter's moments: float32 at least."""
    return torch.promote_types(param.dtype, torch.float32)


def new_state(param: Tensor, *, is_a: bool) -> FactorState:
    """Return the state of a factor that has seen no gradient."""
    rank, num_rows = param.shape if is_a else param.shape[::-1]
    dtype, device = compute_dtype(param), param.device
    return {
        STEP: torch.zeros(()),
        FIRST: torch.zeros(num_rows, rank, dtype=dtype, device=device),
        SECOND: torch.zeros(num_rows, triangle_size(rank), dtype=dtype, device=device),
    }


def state_bytes(num_rows: int, num_columns: int, rank: int) -> int:
    """Return the bytes of a float32 pair's state: 4 (m + n)(r + r(r + 1)/2), and two counters."""
    return 4 * ((num_rows + num_columns) * (rank + triangle_size(rank)) + 2)


class Side:
    """One factor of each pair of a batch: what a step reads of it, taken once."""

    def __init__(self, factors: tuple[Factor, ...], *, sign: float) -> None:
        self.factors = factors
        dtype = compute_dtype(factors[0].param)
        self.values_bRr = torch.stack([factor.rows for factor in factors]).to(dtype)
        self.gradient_bRr = (
            torch.stack([factor.gradient_rows for factor in factors]).to(dtype) * sign
        )
        self.gram_brr = damped_gram(self.values_bRr)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return copies of m [b, R, r] and P [b, R, p]."""
        first, second = (
            torch.stack([factor.state[key] for factor in self.factors]) for key in (FIRST, SECOND)
        )
        return first, second

    def keep(self, first_bRr: Tensor, second_bRp: Tensor) -> None:
        """Store moments as the factors' state, and count the step."""
        for index, factor in enumerate(self.factors):
            factor.state[FIRST].copy_(first_bRr[index])
            factor.state[SECOND].copy_(second_bRp[index])
            factor.state[STEP] += 1

    def move(self, values_bRr: Tensor) -> Tensor:
        """Give the factors new values, and return them as the parameters' type has rounded them."""
        for index, factor in enumerate(self.factors):
            factor.rows.copy_(values_bRr[index])
        dtype = self.factors[0].param.dtype
        return values_bRr.to(dtype).to(values_bRr.dtype)


class PairStep:
    """A step of pairs of one shape that have made equally many: B moves first, then A, and so on.

    NOTE: a side's moments are in terms of the other side's factor as it is when a step begins. Both
    sides' gradients are of that one snapshot. When a side has moved, the moments of the side that
    stayed are put into its new terms; those of the moved side are still right.
    """

    def __init__(self, a: tuple[Factor, ...], b: tuple[Factor, ...], *, maximize: bool) -> None:
        sign = -1.0 if maximize else 1.0
        sides = Side(b, sign=sign), Side(a, sign=sign)
        self.step = int(b[0].state[STEP]) + 1
        self._moving, self._staying = sides if self.step % 2 else sides[::-1]
        self._scaled_of_moving_bRr = scaled_gradient(
            self._moving.gradient_bRr, self._staying.gram_brr
        )

    def projected_square_norm(self) -> Tensor:
        """Return the squared norm of the full gradients, projected to what this step can change."""
        return projected_square_norms(self._moving.gradient_bRr, self._scaled_of_moving_bRr).sum()

    def run(self, settings: AdamSettings, *, gradient_scale: float) -> None:
        """Advance all moments, move one side, calibrate the other's moments."""
        moving, staying = self._moving, self._staying
        scaled_bRr = self._scaled_of_moving_bRr * gradient_scale
        first_bRr, second_bRp = moving.moments()
        advance_moments(first_bRr, second_bRp, scaled_bRr, settings.betas)
        moving.keep(first_bRr, second_bRp)
        device = first_bRr.device.type
        moved_bRr = direction(
            first_bRr,
            second_bRp,
            staying.values_bRr,
            staying.gram_brr,
            settings,
            block_elements=_BLOCK_ELEMENTS.get(device, _OTHER_BLOCK_ELEMENTS),
        )
        kept = 1 - settings.lr * settings.weight_decay
        new_bRr = moving.move(moving.values_bRr * kept - settings.lr * moved_bRr)

        scaled_bCr = scaled_gradient(staying.gradient_bRr, moving.gram_brr) * gradient_scale
        first_bCr, second_bCp = staying.moments()
        advance_moments(first_bCr, second_bCp, scaled_bCr, settings.betas)
        calibration_brr = calibration(moving.values_bRr, new_bRr)
        staying.keep(*calibrated(first_bCr, second_bCp, calibration_brr))


def chunks(
    pairs: list[tuple[Factor, Factor]],
) -> Iterator[tuple[tuple[Factor, ...], tuple[Factor, ...]]]:
    """Yield A and B factors of as many pairs (A, B) as are taken together."""
    a, b = (factor.param for factor in pairs[0])
    limit = _BLOCK_ELEMENTS.get(a.device.type, _OTHER_BLOCK_ELEMENTS)
    size = max(1, _BLOCKS_AT_ONCE * limit // (a.shape[1] * b.shape[0]))
    for start in range(0, len(pairs), size):
        of_a, of_b = zip(*pairs[start : start + size], strict=True)
        yield of_a, of_b
