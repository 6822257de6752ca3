"""LoFT as the paper has it: full matrices, and a loop over rows and columns; slow, NumPy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.linalg import inv
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass
class Reference:
    """One pair of factors and its moments, each with the factor that it was in terms of."""

    b: Matrix
    a: Matrix
    lr: float
    weight_decay: float = 0.0
    eps: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    max_norm: float | None = None

    def __post_init__(self) -> None:
        (m, r), n = self.b.shape, self.a.shape[1]
        self.m_b, self.m_a = np.zeros((m, r)), np.zeros((r, n))
        self.p_b = [np.zeros((r, r)) for _ in range(m)]
        self.p_a = [np.zeros((r, r)) for _ in range(n)]
        self.old_b, self.old_a = self.b.copy(), self.a.copy()
        self.t = 0

    def step(self, gradient: Matrix) -> None:
        """Make a step from the gradient of the full matrix."""
        self.t += 1
        moves_b = self.t % 2 == 1
        b, a = self.b.copy(), self.a.copy()
        if self.max_norm is not None:
            onto_rows, onto_columns = a.T @ inv(a @ a.T) @ a, b @ inv(b.T @ b) @ b.T
            seen = gradient @ onto_rows if moves_b else onto_columns @ gradient
            gradient = gradient * min(1.0, self.max_norm / float(np.sqrt((seen**2).sum())))
        self._moments(b, a, gradient)
        if moves_b:
            update = self._adam(self.m_b @ a, b, a, of_b=True)
            self.b = b - self.lr * self.weight_decay * b - self.lr * update @ a.T @ inv(a @ a.T)
        else:
            update = self._adam(b @ self.m_a, b, a, of_b=False)
            self.a = a - self.lr * self.weight_decay * a - self.lr * inv(b.T @ b) @ b.T @ update
        self.old_b, self.old_a = b, a

    def _moments(self, b: Matrix, a: Matrix, gradient: Matrix) -> None:
        beta1, beta2 = self.betas
        c_b = inv(b.T @ b) @ b.T @ self.old_b
        c_a = self.old_a @ a.T @ inv(a @ a.T)
        g_a = inv(b.T @ b) @ b.T @ gradient
        g_b = gradient @ a.T @ inv(a @ a.T)
        self.m_a = beta1 * c_b @ self.m_a + (1 - beta1) * g_a
        self.m_b = beta1 * self.m_b @ c_a + (1 - beta1) * g_b
        for j in range(len(self.p_a)):
            own = np.outer(g_a[:, j], g_a[:, j])
            self.p_a[j] = beta2 * c_b @ self.p_a[j] @ c_b.T + (1 - beta2) * own
        for i in range(len(self.p_b)):
            own = np.outer(g_b[i], g_b[i])
            self.p_b[i] = beta2 * c_a.T @ self.p_b[i] @ c_a + (1 - beta2) * own

    def _adam(self, first: Matrix, b: Matrix, a: Matrix, *, of_b: bool) -> Matrix:
        update = np.zeros_like(first)
        for i in range(first.shape[0]):
            for j in range(first.shape[1]):
                second = a[:, j] @ self.p_b[i] @ a[:, j] if of_b else b[i] @ self.p_a[j] @ b[i]
                unbiased = max(second, 0.0) / (1 - self.betas[1] ** self.t)
                update[i, j] = first[i, j] / (1 - self.betas[0] ** self.t)
                update[i, j] /= np.sqrt(unbiased) + self.eps
        return update
