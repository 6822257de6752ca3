"""How fast a setting decodes: paired rounds of the clock, in one process."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from veche.core.progress import Advance
from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.embedded.loading import LoadedModel
from veche.engines.protocol import AdaptiveExperts, Branch, Capture, Sampling
from veche.surgery.loading import Model, load_tokenizer

NEW_TOKENS = 24
_PROMPT_CHARACTERS = 400
_MEMORY_BYTES = 1 << 30
"""For keys and values of a few hundred tokens."""
_BRANCH = Branch(
    voice="clock",
    instruction="",
    sampling=Sampling(max_new_tokens=NEW_TOKENS),
    capture=Capture(routing=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Measures decoding of NEW_TOKENS behind a short trunk.

    Attributes:
        folder: the checkpoint.
        prompt: a text whose beginning is the trunk.
        rounds: how many count.
    """

    folder: Path
    prompt: str
    rounds: int

    def paired_rounds(
        self,
        model: Model,
        *,
        as_base: Callable[[], AbstractContextManager[None]],
        advance: Advance,
        experts: AdaptiveExperts | None = None,
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the seconds of each round as the base, and as turned.

        Within a round the two take turns, and who is first changes from round to round, so that
        what else happens on the machine meets both. A first round warms up and does not count.
        The engine changes the model's attention for its own: measure answers before, not after.

        Args:
            model: as turned.
            as_base: gives the model the base's setting while a block runs.
            advance: called with 1 for each round.
            experts: how many each token uses as turned; the base uses the checkpoint's number.
        """
        if not self.rounds:
            return (), ()
        engine = self._engine(model)
        trunk = engine.open_trunk(system="", user=self.prompt[:_PROMPT_CHARACTERS])

        def seconds(branch: Branch) -> float:
            start = time.perf_counter()
            engine.decode(trunk, [branch])
            return time.perf_counter() - start

        base_s, turned_s = [], []
        for index in range(self.rounds + 1):
            for is_base in (True, False) if index % 2 else (False, True):
                if is_base:
                    with as_base():
                        base_s.append(seconds(_BRANCH))
                else:
                    turned_s.append(seconds(replace(_BRANCH, num_experts_per_tok=experts)))
            if index:
                advance(1)
        engine.close_trunk(trunk)
        return tuple(base_s[1:]), tuple(turned_s[1:])

    def _engine(self, model: Model) -> EmbeddedEngine:
        loaded = LoadedModel(
            name=self.folder.name,
            model=model,
            tokenizer=load_tokenizer(self.folder),
            end_ids=frozenset(),  # so that every round decodes equally many
            context_tokens=int(model.config.max_position_embeddings),
            folder=self.folder,
            changes=(),
            memory_bytes=_MEMORY_BYTES,
        )
        return EmbeddedEngine(loaded)
