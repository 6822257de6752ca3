"""Turn tokens into text as they come: whole characters only, up to a stop text."""

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"


class Detokenizer:
    """The text of one branch, piece by piece.

    NOTE: `text` is the pieces joined. A piece ends where a character ends, and never holds what
    may yet turn out to be the beginning of a stop text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.is_stopped = False
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._known = 0  # tokens before this one only give context to the decoder
        self._read = 0  # tokens before this one are in `text` or `_held`
        self._held = ""

    @property
    def num_characters(self) -> int:
        """Characters that are complete, those included that are held back."""
        return len(self.text) + len(self._held)

    def push(self, token_id: int) -> str:
        """Take one token; return the text that it completes."""
        self._ids.append(token_id)
        before = self._decode(self._ids[self._known : self._read])
        after = self._decode(self._ids[self._known :])
        if len(after) <= len(before) or after.endswith(_BROKEN):
            return ""
        self._known, self._read = self._read, len(self._ids)
        return self._release(after[len(before) :])

    def finish(self) -> str:
        """Return what was held back: nothing more will come."""
        if self.is_stopped:
            return ""
        before = self._decode(self._ids[self._known : self._read])
        piece = self._held + self._decode(self._ids[self._known :])[len(before) :]
        self._held = ""
        self.text += piece
        return piece

    def _release(self, new: str) -> str:
        pending = self._held + new
        starts = [at for stop in self._stop if (at := pending.find(stop)) >= 0]
        if starts:
            self.is_stopped = True
            piece, self._held = pending[: min(starts)], ""
        else:
            cut = len(pending) - self._maybe_stop(pending)
            piece, self._held = pending[:cut], pending[cut:]
        self.text += piece
        return piece

    def _maybe_stop(self, pending: str) -> int:
        """Return the length of the longest end of `pending` that begins a stop text."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(pending)), 0, -1):
            if any(stop.startswith(pending[-length:]) for stop in self._stop):
                return length
        return 0
