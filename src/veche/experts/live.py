"""Where the last tokens were sent, kept up while a model speaks.

Shapes: L layers that route, k active experts a token, E experts, W tokens of the window.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from veche.experts import metrics


class LiveRouting:
    """Counts over the last W tokens, and the current token's experts.

    NOTE: `counts_LE` is what counting the window anew would give: a token that leaves the window
    takes with it what it brought.

    Args:
        window_tokens: W.
        num_experts: E, if it is known; else it grows with the largest id that is seen.
    """

    def __init__(self, *, window_tokens: int = 64, num_experts: int = 0) -> None:
        self._window: deque[NDArray[np.integer]] = deque()
        self._window_tokens = window_tokens
        self._last_weights: NDArray[np.floating] | None = None
        self._num_experts = num_experts
        self.counts_LE: NDArray[np.int64] = np.zeros((0, num_experts), np.int64)
        self.num_tokens = 0

    def add(self, ids_Lk: NDArray[np.integer], weights_Lk: NDArray[np.floating]) -> None:
        """Take in a token; places of weight 0 at the end of a row were not used."""
        is_used_Lk = np.logical_or.accumulate(weights_Lk[:, ::-1] > 0, axis=-1)[:, ::-1]
        is_used_Lk[:, 0] = True
        ids_Lk = np.where(is_used_Lk, ids_Lk.astype(np.int64), -1)
        self._fit(len(ids_Lk), int(ids_Lk.max(initial=0)) + 1)
        self._count(ids_Lk, 1)
        self._window.append(ids_Lk)
        self._last_weights = weights_Lk
        self.num_tokens += 1
        if len(self._window) > self._window_tokens:
            self._count(self._window.popleft(), -1)

    @property
    def window_tokens(self) -> int:
        """How many tokens the window holds now."""
        return len(self._window)

    @property
    def load(self) -> NDArray[np.float64]:
        """Load over the window, [L, E]; the null is 1/E."""
        return metrics.load(self.counts_LE)

    @property
    def entropy(self) -> NDArray[np.float64]:
        """Normalised entropy of the window's load, [L]."""
        return metrics.load_entropy(self.load)

    @property
    def token_entropy(self) -> NDArray[np.float64]:
        """Normalised entropy of the current token's weights, [L]; says nothing if all are equal."""
        if self._last_weights is None:
            return np.zeros(0)
        return metrics.token_entropy(self._last_weights[None]).reshape(-1)

    @property
    def current(self) -> list[list[int]]:
        """The current token's experts in each layer, best first."""
        if not self._window:
            return []
        return [[int(expert) for expert in row if expert >= 0] for row in self._window[-1]]

    def _fit(self, num_layers: int, num_experts: int) -> None:
        rows = num_layers - len(self.counts_LE)
        columns = max(num_experts, self._num_experts) - self.counts_LE.shape[1]
        if rows > 0 or columns > 0:
            self.counts_LE = np.pad(self.counts_LE, ((0, max(rows, 0)), (0, max(columns, 0))))

    def _count(self, ids_Lk: NDArray[np.integer], by: int) -> None:
        layers, places = np.nonzero(ids_Lk >= 0)
        np.add.at(self.counts_LE, (layers, ids_Lk[layers, places]), by)
