"""Symmetric r × r matrices as vectors of their upper triangles, and what maps these linearly.

Shapes: b pairs of one shape; R rows; c columns; r rank; p = r(r + 1)/2 entries of a triangle, row
by row.
"""

from functools import cache

import torch
from torch import Tensor


def outer_squares(vectors_bRr: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors [b, R, p] whose product is the triangles of g gᵀ for each row g."""
    first_p, second_p = _triangle(vectors_bRr.shape[-1], vectors_bRr.device)
    return vectors_bRr.index_select(-1, first_p), vectors_bRr.index_select(-1, second_p)


def congruence(map_brr: Tensor) -> Tensor:
    """Return S [b, p, p] with triangle(P) S = triangle(Cᵀ P C) for every symmetric P.

    (CᵀPC)_ij = Σ_k P_kk C_ki C_kj + Σ_{k<l} P_kl (C_ki C_lj + C_li C_kj).
    """
    first_p, second_p = _triangle(map_brr.shape[-1], map_brr.device)
    at_k, at_l = map_brr.index_select(-2, first_p), map_brr.index_select(-2, second_p)
    both = at_k[..., first_p] * at_l[..., second_p] + at_l[..., first_p] * at_k[..., second_p]
    return both * _share_of_order(first_p, second_p, both.dtype)


def quadratic_form(columns_brc: Tensor) -> Tensor:
    """Return Q [b, p, c] with triangle(P) Q = aᵀ P a for every symmetric P and each column a.

    aᵀPa = Σ_k P_kk a_k² + Σ_{k<l} 2 P_kl a_k a_l.
    """
    first_p, second_p = _triangle(columns_brc.shape[-2], columns_brc.device)
    both = columns_brc.index_select(-2, first_p) * columns_brc.index_select(-2, second_p)
    return both * (2 * _share_of_order(first_p, second_p, both.dtype))


def triangle_size(rank: int) -> int:
    """Return p = r(r + 1)/2."""
    return rank * (rank + 1) // 2


@cache
def _triangle(rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first_p, second_p = torch.triu_indices(rank, rank, device=device)
    return first_p, second_p


def _share_of_order(first_p: Tensor, second_p: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ½ on the diagonal, where both orders of the indices are the same entry; else 1."""
    return (1 - 0.5 * (first_p == second_p).to(dtype)).unsqueeze(-1)
