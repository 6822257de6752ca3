"""What was seen inside the model while it read a text.

Shapes: S steps (1 where a text has none), C captured layers, D hidden size, F scalars, L layers
that route, E experts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One text that was read, step by step.

    Attributes:
        hidden: [S, C, D], mean hidden state over each step's tokens, at the captured layers.
        scalars: [S, F], log-probabilities, entropies and router scalars; `scalar_names` says which.
        load: [S, L, E], share of each step's choices that each expert got; None on a dense model.
        num_tokens: [S], tokens of each step.
    """

    hidden: NDArray[np.float32]
    scalars: NDArray[np.float32]
    scalar_names: tuple[str, ...]
    load: NDArray[np.float32] | None
    num_tokens: NDArray[np.int64]
