"""Put tokens through the model: many sequences in one batch, in pieces that llama.cpp takes.

Shapes: R rows (tokens), V vocabulary.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import EngineError
from veche.engines.cancelled import CancelledError
from veche.engines.llama_cpp.library import last_complaint, pointer_array
from veche.engines.llama_cpp.loading import BATCH_TOKENS, LoadedGguf
from veche.engines.llama_cpp.router_tap import TokenRouting

_NO_ROOM, _ABORTED = 1, 2
"""What llama_decode answers, besides 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A token to be fed: where it stands in which sequence, and whether its logits are wanted."""

    token_id: int
    position: int
    sequence: int
    wants_logits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """What came back for the rows whose logits were wanted, in their order.

    Attributes:
        logits: [V] each.
        routing: where those rows were sent, if anyone was listening.
    """

    logits: list[NDArray[np.float32]]
    routing: list[TokenRouting]


class Feeder:
    """The one place that calls llama_decode.

    NOTE: no more rows want logits in one piece than the context has room for, and while someone
    listens a piece holds only such rows: the last layer computes no others.
    """

    def __init__(self, loaded: LoadedGguf) -> None:
        self._loaded = loaded
        self._num_vocab = loaded.vocabulary.size
        self._max_outputs = min(loaded.max_sequences, BATCH_TOKENS)
        self._tokens, self._positions, self._sequences = (
            np.zeros(BATCH_TOKENS, np.int32) for _ in range(3)
        )
        self._wants = np.zeros(BATCH_TOKENS, np.int8)
        self._ones = np.ones(BATCH_TOKENS, np.int32)
        starts = self._sequences.ctypes.data + 4 * np.arange(BATCH_TOKENS, dtype=np.uint64)
        self._sequence_pointers = starts.astype(np.uint64)
        self._batch = self._batch_of_arrays()

    def feed(self, rows: Sequence[Row], cancel: Event | None = None) -> Fed:
        """Append rows to their sequences.

        Raises:
            CancelledError: `cancel` was set before all were fed.
            EngineError: llama.cpp failed.
        """
        fed = Fed(logits=[], routing=[])
        for piece in self._pieces(rows):
            if cancel is not None and cancel.is_set():
                raise CancelledError
            self._evaluate(piece, cancel)
            wanting = [index for index, row in enumerate(piece) if row.wants_logits]
            fed.logits.extend(self._logits(index) for index in wanting)
            fed.routing.extend(self._loaded.tap.take(len(wanting)))
        return fed

    def _pieces(self, rows: Sequence[Row]) -> list[list[Row]]:
        pieces: list[list[Row]] = [[]]
        num_outputs = 0
        for row in rows:
            is_full = len(pieces[-1]) == BATCH_TOKENS
            if is_full or (row.wants_logits and num_outputs == self._max_outputs):
                pieces.append([])
                num_outputs = 0
            pieces[-1].append(row)
            num_outputs += row.wants_logits
        return pieces if rows else []

    def _evaluate(self, piece: Sequence[Row], cancel: Event | None) -> None:
        count = len(piece)
        self._tokens[:count] = [row.token_id for row in piece]
        self._positions[:count] = [row.position for row in piece]
        self._sequences[:count] = [row.sequence for row in piece]
        self._wants[:count] = [row.wants_logits for row in piece]
        self._batch.n_tokens = count
        lib, context = self._loaded.lib, self._loaded.context
        status = self._loaded.worker.run(lambda: lib.llama_decode(context, self._batch), cancel)
        if status == _ABORTED:
            raise CancelledError
        if status:
            reason = "the cache is full" if status == _NO_ROOM else last_complaint("no reason")
            raise EngineError(
                f"llama.cpp failed to evaluate {count} tokens (status {status}): {reason}",
                hint="use fewer voices or a shorter trunk; if it stays, export the file again",
            )

    def _logits(self, index: int) -> NDArray[np.float32]:
        """Copy a row's logits: the next evaluation writes over them."""
        pointer = self._loaded.lib.llama_get_logits_ith(self._loaded.context, index)
        return np.ctypeslib.as_array(pointer, (self._num_vocab,)).astype(np.float32, copy=True)

    def _batch_of_arrays(self) -> Any:
        """Return a llama_batch whose memory is ours."""
        lib = self._loaded.lib
        batch = lib.llama_batch()
        batch.token = pointer_array(self._tokens, lib.llama_token)
        batch.embd = None
        batch.pos = pointer_array(self._positions, lib.llama_pos)
        batch.n_seq_id = pointer_array(self._ones, ctypes.c_int32)
        batch.seq_id = ctypes.cast(
            self._sequence_pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))
        )
        batch.logits = pointer_array(self._wants, ctypes.c_int8)
        return batch
