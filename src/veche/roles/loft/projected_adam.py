"""AdamW's step on the full matrix, seen through one factor.

Shapes: b pairs of one shape; R rows and C columns of the factored matrix F Oᵀ; r rank;
p = r(r + 1)/2; k rows of a block. See `gradient_scaling` for F and O.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from veche.roles.loft.gradient_scaling import times_inverse
from veche.roles.loft.symmetric_square import outer_squares, quadratic_form


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamSettings:
    """The dials of one step, bias corrections included.

    Attributes:
        lr: learning rate.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled, on BA; times lr.
        step: how many gradients the moments have seen, this one included.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    step: int


def advance_moments(
    first_bRr: Tensor, second_bRp: Tensor, scaled_bRr: Tensor, betas: tuple[float, float]
) -> None:
    """Move both moments of a factor, in place, by a scaled gradient g.

    m ← β₁ m + (1 − β₁) g and, for each row, P ← β₂ P + (1 − β₂) g gᵀ (arXiv 2505.21289): P, not
    only its diagonal, tells the second moment of every entry of the projected full gradient.
    """
    first_bRr.lerp_(scaled_bRr, 1 - betas[0])
    second_bRp.mul_(betas[1]).addcmul_(*outer_squares(scaled_bRr), value=1 - betas[1])


def direction(
    first_bRr: Tensor,
    second_bRp: Tensor,
    other_bCr: Tensor,
    gram_brr: Tensor,
    settings: AdamSettings,
    *,
    block_elements: int,
) -> Tensor:
    """Return U O (OᵀO)⁻¹, [b, R, r]: what the factor moves by, for each unit of learning rate.

    U = (m Oᵀ / c₁) / (√V / √c₂ + ε), V_ij = o_jᵀ P_i o_j, c = 1 − β^step (arXiv 2505.21289). U is
    Adam's step for the projected full gradient; the factor follows its projection.

    Args:
        first_bRr: m.
        second_bRp: P of each row.
        other_bCr: O.
        gram_brr: OᵀO, damped.
        settings: dials of the step.
        block_elements: U is formed for so many entries at once, row by row.
    """
    first_c, second_c = (1 - beta**settings.step for beta in settings.betas)
    # Contiguous this way round, both products with it are fast.
    other_brC = other_bCr.mT.contiguous()
    unbiased_bRr, form_bpC = first_bRr / first_c, quadratic_form(other_brC) / second_c
    num_pairs, num_columns = other_bCr.shape[:2]
    block = max(1, block_elements // (num_pairs * num_columns))
    projected = [
        _adam(first_bkr @ other_brC, second_bkp @ form_bpC, settings.eps) @ other_brC.mT
        for first_bkr, second_bkp in zip(
            torch.split(unbiased_bRr, block, dim=1),
            torch.split(second_bRp, block, dim=1),
            strict=True,
        )
    ]
    return times_inverse(torch.cat(projected, dim=1), gram_brr)


def _adam(first_bkC: Tensor, second_bkC: Tensor, eps: float) -> Tensor:
    """Return first / (√second + ε), in the memory of both."""
    # Quadratic forms of a positive P; rounding may leave one a little below 0.
    return first_bkC.div_(second_bkC.clamp_(min=0).sqrt_().add_(eps))
