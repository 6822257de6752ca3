"""The decode loop: a batch of branches, each until it is done.

Shapes: B branches, S suffix tokens after padding, V vocabulary.
"""

from collections.abc import Callable, Sequence
from threading import Event

import torch

from veche.core.errors import EngineError
from veche.engines.cancelled import CancelledError
from veche.engines.embedded.branch_state import BranchState
from veche.engines.embedded.forward import Output, Rows, Runner
from veche.engines.embedded.kv_cache import Segment, keep_rows, row_segment
from veche.engines.embedded.observations import entropy_nats

CHUNK_TOKENS = 512
"""Of one row that are prefilled at a time."""
Keep = Callable[[BranchState, Segment], None]
"""Called with a finished branch that is to be kept, and its own keys and values."""


class Decoding:
    """Branches behind one prefix, decoded as one batch.

    NOTE: a branch's row is [shared prefix | padding | suffix | decoded]. Padding is masked, and
    positions are counted without it, so a row computes exactly what it would compute alone.
    """

    def __init__(
        self,
        runner: Runner,
        prefix: Sequence[Segment],
        states: Sequence[BranchState],
        *,
        end_ids: frozenset[int],
        keep: Keep,
        cancel: Event | None,
    ) -> None:
        self._runner = runner
        self._active = list(states)
        self._end_ids = end_ids
        self._keep = keep
        self._cancel = cancel
        width = max(len(state.suffix_ids) for state in states)
        room = width + max(state.branch.sampling.max_new_tokens for state in states)
        self._rows = runner.rows(prefix, len(states), room)
        self._layers = sorted({n for state in states for n in state.branch.capture.hidden_layers})

    def run(self) -> None:
        """Prefill the suffixes, then step until every branch is done, or cancelled."""
        try:
            output = self._prefill()
            while True:
                self._step(output)
                if not self._drop_finished():
                    return
                ids_B1 = torch.tensor([[state.token_ids[-1]] for state in self._active])
                output = self._feed(ids_B1)
        except CancelledError:
            for state in self._active:
                if state.finish_reason is None:
                    state.finish("cancelled")

    def _prefill(self) -> Output:
        ids_BS, is_real_BS = left_padded([state.suffix_ids for state in self._active])
        self._set_rows()
        width = ids_BS.shape[1]
        for at in range(0, width, CHUNK_TOKENS):
            chunk = slice(at, at + CHUNK_TOKENS)
            self._runner.adapters.set_behind(max(0, width - at - CHUNK_TOKENS))
            output = self._runner.feed(
                self._rows,
                ids_BS[:, chunk],
                is_real_BS[:, chunk],
                hidden_layers=self._layers,
                cancel=self._cancel,
            )
            self._runner.control.discard()
        return output

    def _feed(self, ids_B1: torch.Tensor) -> Output:
        wants_heads = any(state.branch.capture.heads for state in self._active)
        output = self._runner.feed(
            self._rows,
            ids_B1,
            hidden_layers=self._layers,
            counts=torch.ones_like(ids_B1, dtype=torch.bool) if wants_heads else None,
            cancel=self._cancel,
        )
        for state, routed in zip(self._active, self._runner.control.take(), strict=False):
            state.add_routing(routed)
        for state, heads in zip(self._active, self._runner.heads.take(), strict=False):
            state.add_heads(heads)
        return output

    def _step(self, output: Output) -> None:
        logits_BV = output.logits[:, -1]
        entropies_B = entropy_nats(logits_BV)
        require_numbers(entropies_B, [state.branch.voice for state in self._active])
        for row, state in enumerate(self._active):
            hidden = output.hidden
            state.step(
                logits_BV[row],
                entropies_B[row],
                None if hidden is None else hidden[row, -1, columns_of(self._layers, state)],
                self._end_ids,
            )

    def _drop_finished(self) -> bool:
        """Keep what is to be kept of finished branches, and drop their rows; say if any is left."""
        going = []
        for row, state in enumerate(self._active):
            if state.finish_reason is None:
                going.append(row)
            elif state.branch.keep:
                keep_row(self._rows, row, state, self._keep)
        if going and len(going) < len(self._active):
            keep_rows(self._rows.cache, torch.tensor(going, device=self._runner.device))
            self._rows.is_real = self._rows.is_real[going]
            self._active = [self._active[row] for row in going]
            self._set_rows()
        return bool(going)

    def _set_rows(self) -> None:
        self._runner.set_rows(
            [state.branch for state in self._active],
            [state.adapter_span for state in self._active],
        )


def keep_row(rows: Rows, row: int, state: BranchState, keep: Keep) -> None:
    """Copy a row's keys and values, but for those of its last token, and hand them over."""
    num_real = len(state.suffix_ids) + len(state.token_ids) - 1
    start = int((~rows.is_real[row]).sum())  # padding is on the left
    keep(state, row_segment(rows.cache, row, start, start + num_real))


def columns_of(layers: Sequence[int], state: BranchState) -> list[int]:
    """Return where the layers that a branch asked for are among all captured ones."""
    return [layers.index(layer) for layer in state.branch.capture.hidden_layers]


def require_numbers(entropies_B: torch.Tensor, voices: Sequence[str]) -> None:
    """Refuse NaN logits.

    Raises:
        EngineError: a voice got them.
    """
    for voice, is_nan in zip(voices, entropies_B.isnan().tolist(), strict=True):
        if is_nan:
            raise EngineError(
                f"the model computed NaN logits for voice {voice!r}",
                hint="load it with another dtype, or run `veche verify` on the checkpoint",
            )


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and which of them are real, [B, S] each; padding repeats no one's token: 0."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    is_real = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row)
        is_real[index, width - len(row) :] = True
    return ids, is_real
