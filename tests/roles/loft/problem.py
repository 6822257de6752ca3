"""Small problems whose only parameters are the factors of a matrix."""

from collections.abc import Callable

import torch
from torch import Tensor

from veche.roles.loft.optimizer import LoFT

Loss = Callable[[Tensor], Tensor]


def factor(rows: int, columns: int, *, seed: int) -> Tensor:
    """Return a float64 matrix whose singular values lie between 0.7 and 1.4."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    return left @ torch.diag(torch.linspace(0.7, 1.4, len(values), dtype=torch.float64)) @ right


def pair(m: int, n: int, r: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return B [m, r] and A [r, n]."""
    return factor(m, r, seed=seed), factor(r, n, seed=seed + 1)


def loss_of(m: int, n: int, *, seed: int = 7) -> Loss:
    """Return a loss of a matrix [m, n] that is not the same in all directions."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(m, n, dtype=torch.float64, generator=generator)
    mixing = torch.randn(m, m, dtype=torch.float64, generator=generator)

    def loss(matrix: Tensor) -> Tensor:
        away = mixing.to(matrix.dtype) @ (matrix - target.to(matrix.dtype))
        return (1 + away**2).sqrt().mean()

    return loss


class Trained:
    """Factors, and LoFT that trains them."""

    def __init__(self, b: Tensor, a: Tensor, loss: Loss, **options: object) -> None:
        self.b = b.clone().requires_grad_()
        self.a = a.clone().requires_grad_()
        self.loss = loss
        group = {"kind": "pairs", "params": [self.a, self.b]}
        self.optimizer = LoFT([group], **options)  # type: ignore[arg-type]

    def step(self) -> float:
        """Make a step and return the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(self.b @ self.a)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    @property
    def product(self) -> Tensor:
        """BA."""
        return (self.b @ self.a).detach()
