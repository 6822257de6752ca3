"""What becomes of a factor's moments when the other factor, in whose terms they are, has moved.

Shapes: b pairs of one shape; R rows and C columns of the factored matrix F Oᵀ; r rank;
p = r(r + 1)/2. See `gradient_scaling` for F and O.
"""

from torch import Tensor

from veche.roles.loft.gradient_scaling import damped_gram, times_inverse
from veche.roles.loft.symmetric_square import congruence


def calibration(old_bCr: Tensor, new_bCr: Tensor) -> Tensor:
    """Return C = O_oldᵀ O (OᵀO)⁻¹, [b, r, r], after the other factor went from O_old to O.

    m C is the least-squares fit of the old moment m O_oldᵀ in the new row space: (m C) Oᵀ =
    m O_oldᵀ O (OᵀO)⁻¹ Oᵀ. arXiv 2505.21289: C_A = A_old Aᵀ(AAᵀ)⁻¹ and, transposed,
    C_B = (BᵀB)⁻¹BᵀB_old.
    """
    return times_inverse(old_bCr.mT @ new_bCr, damped_gram(new_bCr))


def calibrated(
    first_bRr: Tensor, second_bRp: Tensor, calibration_brr: Tensor
) -> tuple[Tensor, Tensor]:
    """Return m C and, for each row, Cᵀ P C: the moments in terms of the new factor."""
    return first_bRr @ calibration_brr, second_bRp @ congruence(calibration_brr)
