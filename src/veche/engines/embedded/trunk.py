"""A conversation whose keys and values are in memory, open at its end."""

from collections.abc import Sequence
from typing import Literal

from veche.engines.embedded.forward import Rows
from veche.engines.embedded.kv_cache import Segment, segment_of

Turn = Literal["user", "answer", "text"]
"""Whose words the trunk ends in: the user's open turn, an answer, or text without turns."""


class EmbeddedTrunk:
    """Tokens, and the cache of all of them but the pending ones.

    NOTE: what `rows` holds and what `token_ids` says grow together or not at all. Segments of the
    prefix belong to a parent, and are never written.

    Attributes:
        rows: a batch of one row; None once it is closed.
        token_ids: all tokens, the pending ones last.
        pending: how many tokens at the end are not in the cache yet: they are fed first.
        turn: whose words it ends in.
        lineage: content hashes of adapters that computed a part of it.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        turn: Turn,
        token_ids: Sequence[int] = (),
        pending: int = 0,
        lineage: tuple[str, ...] = (),
    ) -> None:
        self.rows: Rows | None = rows
        self.turn = turn
        self.token_ids = list(token_ids)
        self.pending = pending
        self.lineage = lineage

    @property
    def num_tokens(self) -> int:
        """How many tokens it holds."""
        return len(self.token_ids)

    @property
    def pending_ids(self) -> list[int]:
        """The tokens that are not in the cache yet."""
        return self.token_ids[len(self.token_ids) - self.pending :]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All keys and values, as segments that later appends don't change."""
        rows = open_rows(self)
        return (*rows.prefix, segment_of(rows.cache)) if rows.length else rows.prefix


def open_rows(trunk: EmbeddedTrunk) -> Rows:
    """Return the trunk's rows.

    Raises:
        ValueError: it was closed.
    """
    if trunk.rows is None:
        raise ValueError("this trunk was closed, or opened by another engine")
    return trunk.rows
