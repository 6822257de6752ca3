"""Read given answers instead of decoding them: one pass, nothing is sampled.

Shapes: B branches, S tokens of suffix and answer after padding, V vocabulary.
"""

from collections.abc import Sequence

import torch

from veche.engines.embedded.branch_state import BranchState, last_tokens
from veche.engines.embedded.decoding import (
    CHUNK_TOKENS,
    Keep,
    columns_of,
    keep_row,
    left_padded,
    require_numbers,
)
from veche.engines.embedded.forward import Output, Runner
from veche.engines.embedded.kv_cache import Segment
from veche.engines.embedded.observations import entropy_nats

_LOGITS_AT_ONCE = 1 << 26
"""Values of float32 logits that a chunk may have: 256 MiB."""


class Reading:
    """Branches behind one prefix, each with an answer that is known.

    NOTE: rows end together: column S − A + j of a row holds its j-th answer token of A, and the
    column before predicts it.
    """

    def __init__(
        self,
        runner: Runner,
        prefix: Sequence[Segment],
        states: Sequence[BranchState],
        answers: Sequence[Sequence[int]],
        *,
        keep: Keep,
    ) -> None:
        self._runner = runner
        self._states = states
        self._answers = answers
        self._keep = keep
        rows = [[*s.suffix_ids, *answer] for s, answer in zip(states, answers, strict=True)]
        self._ids_BS, self._is_real_BS = left_padded(rows)
        self._rows = runner.rows(prefix, len(states), self._ids_BS.shape[1])
        self._layers = sorted({n for state in states for n in state.branch.capture.hidden_layers})
        self._wants_heads = any(state.branch.capture.heads for state in states)

    def run(self) -> None:
        """Feed everything, chunk by chunk, and note what each answer token was predicted as."""
        self._runner.set_rows(
            [state.branch for state in self._states],
            [
                state.adapter_span + len(answer)
                for state, answer in zip(self._states, self._answers, strict=True)
            ],
        )
        num_rows, width = self._ids_BS.shape
        most = max(1, _LOGITS_AT_ONCE // (num_rows * self._runner.vocab_size))
        chunk = min(CHUNK_TOKENS, most)
        for start in range(0, width, chunk):
            self._feed(start, min(start + chunk, width))
        for row, (state, answer) in enumerate(zip(self._states, self._answers, strict=True)):
            state.read(answer)
            if state.branch.keep:
                keep_row(self._rows, row, state, self._keep)

    def _feed(self, start: int, stop: int) -> None:
        self._runner.adapters.set_behind(self._ids_BS.shape[1] - stop)
        counts_BQ = torch.stack([self._is_answer(row, start, stop) for row in self._indices])
        output = self._runner.feed(
            self._rows,
            self._ids_BS[:, start:stop],
            self._is_real_BS[:, start:stop],
            logits_to_keep=self._num_predicting(start, stop),
            hidden_layers=self._layers,
            counts=counts_BQ if self._wants_heads else None,
        )
        routed = self._runner.control.take()
        heads = self._runner.heads.take()
        for row, state in enumerate(self._states):
            self._note(row, output, stop)
            num_answer = int(counts_BQ[row].sum())
            if routed and num_answer:
                state.add_routing(last_tokens(routed[row], num_answer))
            if heads and num_answer:
                state.add_heads(heads[row])

    @property
    def _indices(self) -> range:
        return range(len(self._states))

    def _is_answer(self, row: int, start: int, stop: int) -> torch.Tensor:
        first = self._ids_BS.shape[1] - len(self._answers[row])
        return torch.arange(start, stop) >= first

    def _num_predicting(self, start: int, stop: int) -> int:
        """Return how many of the chunk's last columns predict an answer token; at least 1."""
        width = self._ids_BS.shape[1]
        first = width - max(map(len, self._answers)) - 1
        return max(1, stop - max(start, first))

    def _note(self, row: int, output: Output, stop: int) -> None:
        state, answer = self._states[row], self._answers[row]
        width, num_kept = self._ids_BS.shape[1], output.logits.shape[1]
        first = max(width - len(answer) - 1, stop - num_kept)
        last = min(stop, width - 1)
        if first >= last:
            return
        at = slice(first - (stop - num_kept), last - (stop - num_kept))
        logits_TV = output.logits[row, at]
        entropies_T = entropy_nats(logits_TV)
        require_numbers(entropies_T, [state.branch.voice] * len(entropies_T))
        hidden = output.hidden
        state.observations.add(
            logits_TV,
            entropies_T,
            self._ids_BS[row, first + 1 : last + 1].tolist(),
            None if hidden is None else hidden[row, at][:, columns_of(self._layers, state)],
        )
