"""Let a model read texts, steered and not.

Shapes: N texts, T tokens of one, L layers that route, E experts, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.core.progress import Advance
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    Capture,
    Engine,
    Sampling,
    ScoringEngine,
    Steering,
    Trunk,
    require,
    scoring,
)
from veche.experts.metrics import expert_counts
from veche.experts.steering.contrast import Activations

NEEDED = (
    Capability.SCORE,
    Capability.ROUTING,
    Capability.STEERING,
    Capability.LOGPROBS,
    Capability.LOGITS,
)
_BEGINNING = "\n"
"""What every text stands behind, so that its first token is predicted from something."""
_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One text, read once.

    Attributes:
        logprobs: [T], of each token.
        counts: [L, E], tokens for which an expert was active.
        logits: [T, V]; None where they were not asked for.
    """

    logprobs: NDArray[np.float32]
    counts: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None

    @property
    def nll(self) -> float:
        """The text's mean negative log-likelihood, in nats a token."""
        return float(-self.logprobs.mean(dtype=np.float64))


class Reader:
    """A model that reads, always behind the same beginning."""

    def __init__(self, engine: ScoringEngine, trunk: Trunk) -> None:
        self._engine = engine
        self._trunk = trunk

    def activations(self, texts: Sequence[str], advance: Advance) -> Activations:
        """Return where the tokens of each text are sent without any steering."""
        readings: dict[int, Reading] = {}
        # Rows of a batch are as long as its longest: texts of a length go together.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), _ROWS):
            batch = order[start : start + _ROWS]
            read = self._read([texts[index] for index in batch], [None] * len(batch))
            readings.update(zip(batch, read, strict=True))
            advance(len(batch))
        in_order = [readings[index] for index in range(len(texts))]
        return Activations(
            counts=np.stack([reading.counts for reading in in_order]),
            num_tokens=np.array([len(reading.logprobs) for reading in in_order]),
        )

    def compared(
        self, text: str, steerings: Sequence[Steering | None], *, wants_logits: bool = False
    ) -> list[Reading]:
        """Read one text under several steerings at once; None is without."""
        return self._read([text] * len(steerings), steerings, wants_logits=wants_logits)

    def _read(
        self,
        texts: Sequence[str],
        steerings: Sequence[Steering | None],
        *,
        wants_logits: bool = False,
    ) -> list[Reading]:
        branches = [
            Branch(
                voice=str(index),
                instruction="",
                sampling=Sampling(),
                steering=steering,
                capture=Capture(routing=True, logprobs=0, logits=wants_logits),
            )
            for index, steering in enumerate(steerings)
        ]
        return [_reading(result) for result in self._engine.score(self._trunk, branches, texts)]


@contextmanager
def reader(engine: Engine) -> Iterator[Reader]:
    """Open a reader, and close what it holds when the block ends.

    Raises:
        UnsupportedError: the engine, or the model in it, cannot be steered or read.
    """
    require(engine, *NEEDED)
    scorer = scoring(engine)
    trunk = scorer.open_text(_BEGINNING)
    try:
        yield Reader(scorer, trunk)
    finally:
        scorer.close_trunk(trunk)


def _reading(result: BranchResult) -> Reading:
    assert result.routing is not None  # noqa: S101 - asked for
    assert result.logprobs is not None  # noqa: S101 - asked for
    return Reading(
        logprobs=result.logprobs.chosen,
        counts=expert_counts(result.routing.expert_ids, result.routing.num_experts),
        logits=result.logits,
    )
