"""Who holds which tokens of the cache: sequences share the beginnings that they have in common."""

from dataclasses import dataclass, field

from veche.core.errors import InputError


@dataclass(slots=True, kw_only=True, eq=False)
class _Segment:
    """Tokens that were appended by one sequence, and how many sequences hold them."""

    num_tokens: int = 0
    num_holders: int = 1


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A sequence of llama.cpp's cache: its number, and what it is made of."""

    number: int
    segments: list[_Segment] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Its length."""
        return sum(segment.num_tokens for segment in self.segments)


class Cells:
    """The accounts of a unified cache, kept so that work is refused before it is begun.

    NOTE: the cache's cells in use are those of all segments with a holder, each counted once.
    """

    def __init__(self, *, num_cells: int, max_sequences: int) -> None:
        self.num_cells = num_cells
        self.num_used = 0
        self._max_sequences = max_sequences
        self._free = list(range(max_sequences))[::-1]

    def require(self, *, num_sequences: int, num_tokens: int) -> None:
        """Refuse what does not fit.

        Raises:
            InputError: too many sequences, or too many tokens.
        """
        if num_sequences > len(self._free):
            raise InputError(
                f"{num_sequences} more sequences are needed for trunks and branches, and "
                f"{len(self._free)} of {self._max_sequences} are free",
                hint="close trunks that are no longer needed, or ask fewer voices at once",
            )
        free = self.num_cells - self.num_used
        if num_tokens > free:
            raise InputError(
                f"{num_tokens} more tokens are needed, and the cache has room for {free} of its "
                f"{self.num_cells}, which all trunks and branches share",
                hint="close trunks, allow fewer new tokens, or load the model with more "
                "cache_tokens",
            )

    def open(self) -> Sequence:
        """Begin an empty sequence."""
        return Sequence(number=self._free.pop())

    def fork(self, parent: Sequence) -> Sequence:
        """Begin a sequence that shares all tokens of another one."""
        child = Sequence(number=self._free.pop(), segments=list(parent.segments))
        for segment in child.segments:
            segment.num_holders += 1
        return child

    def extend(self, sequence: Sequence, num_tokens: int) -> None:
        """Append tokens to a sequence; those who share its beginning don't get them."""
        if not sequence.segments or sequence.segments[-1].num_holders > 1:
            sequence.segments.append(_Segment())
        sequence.segments[-1].num_tokens += num_tokens
        self.num_used += num_tokens

    def close(self, sequence: Sequence) -> None:
        """Give back the sequence, and the tokens that no other one holds."""
        for segment in sequence.segments:
            segment.num_holders -= 1
            if not segment.num_holders:
                self.num_used -= segment.num_tokens
        sequence.segments = []
        self._free.append(sequence.number)
