"""The gradient of a factor in the units of the full gradient.

Shapes: b pairs of one shape; R rows and C columns of the factored matrix; r rank. Every equation is
written for a factor F [b, R, r] and its other O [b, C, r] of a matrix F Oᵀ: F = B and O = Aᵀ for
one factor of BA, F = Aᵀ and O = B (of its transpose) for the other.
"""

import torch
from torch import Tensor

_DAMPING_EPS = 8.0
"""Damping in units of the type's rounding error: 1e-6 in float32, 2e-15 in float64."""
_FLOOR = 1e-30
"""Keeps the Gram matrix of a zero factor, as LoRA's B at the start, invertible: 0 / 1e-30 = 0."""


def damped_gram(other_bCr: Tensor) -> Tensor:
    """Return OᵀO + λ diag(OᵀO) + 1e-30 I, [b, r, r], with λ = 8 rounding errors.

    AAᵀ and BᵀB of arXiv 2505.21289, whose authors add 1e-8 I and 1e-6 I. Damping in proportion to
    the diagonal, as Marquardt does, does not depend on how large a factor is, nor on how a scale is
    divided between the columns of both: BA alone decides what a step does.
    """
    gram_brr = other_bCr.mT @ other_bCr
    diagonal_br = gram_brr.diagonal(dim1=-2, dim2=-1)
    damping_br = _DAMPING_EPS * torch.finfo(gram_brr.dtype).eps * diagonal_br + _FLOOR
    return gram_brr + damping_br.diag_embed()


def scaled_gradient(gradient_bRr: Tensor, gram_brr: Tensor) -> Tensor:
    """Return ∇F (OᵀO)⁻¹, [b, R, r], from the gradient of a factor.

    With the full gradient G [R, C], ∇F = G O, so the result g is the least-squares fit of G in the
    row space of Oᵀ: g Oᵀ = G O (OᵀO)⁻¹ Oᵀ. arXiv 2505.21289: g_B = GAᵀ(AAᵀ)⁻¹ and, transposed,
    g_A = (BᵀB)⁻¹BᵀG.
    """
    return times_inverse(gradient_bRr, gram_brr)


def times_inverse(rows_bRr: Tensor, gram_brr: Tensor) -> Tensor:
    """Return X K⁻¹; of numbers that have overflowed NaN, without waiting for a device to say so."""
    solved: Tensor = torch.linalg.solve_ex(gram_brr, rows_bRr, left=False).result
    return solved


def projected_square_norms(gradient_bRr: Tensor, scaled_bRr: Tensor) -> Tensor:
    """Return ‖G O (OᵀO)⁻¹ Oᵀ‖² of each pair, [b]: the squared norm of the projected full gradient.

    ‖g Oᵀ‖² = ⟨g OᵀO, g⟩ = ⟨∇F, g⟩, so that nothing of the size of G is formed.
    """
    return (gradient_bRr * scaled_bRr).sum((-2, -1)).clamp(min=0)
