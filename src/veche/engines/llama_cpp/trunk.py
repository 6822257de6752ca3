"""A trunk of the llama.cpp engine."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from veche.engines.llama_cpp.cells import Sequence
from veche.engines.protocol import Trunk

Turn = Literal["user", "answer", "text"]
"""Whose words a trunk ends in: the user's open turn, an answer, or plain text without a chat."""


@dataclass(slots=True, kw_only=True, eq=False)
class LlamaCppTrunk:
    """A sequence of the cache, and what is known of it.

    Attributes:
        sequence: None once it is closed.
        turn: whose words it ends in.
        token_ids: all its tokens.
        last_logits: [V], what comes behind its last token.
        adapters: content hashes of the adapters that took part in it.
    """

    sequence: Sequence | None
    turn: Turn
    token_ids: list[int] = field(default_factory=list)
    last_logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    adapters: frozenset[str] = frozenset()

    @property
    def num_tokens(self) -> int:
        """How many tokens it holds."""
        return len(self.token_ids)


def opened(trunk: Trunk) -> tuple[LlamaCppTrunk, Sequence]:
    """Return a trunk as ours, and its sequence.

    Raises:
        ValueError: it was closed, or is another engine's.
    """
    if not isinstance(trunk, LlamaCppTrunk) or trunk.sequence is None:
        raise ValueError("this trunk was closed, or opened by another engine")
    return trunk, trunk.sequence
