"""One prefilled trunk, and a batch of branches decoded behind it.

Shapes: B branches, S suffix tokens after padding, T trunk tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch

from veche.core.errors import EngineError, InputError
from veche.engines.embedded.branch_state import BranchState
from veche.engines.embedded.chat_format import chat_format
from veche.engines.embedded.kv_cache import forked, keep_rows, rewind, trunk_cache
from veche.engines.embedded.loading import LoadedModel
from veche.engines.embedded.router_tap import RouterTap
from veche.engines.embedded.sampling import entropy_nats
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    OnRouting,
    OnToken,
    Trunk,
    require_for,
)

_PREFILL_CHUNK_TOKENS = 512


class EmbeddedTrunk:
    """Tokens whose keys and values are in `cache`; both grow together or not at all."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.num_tokens = 0


class EmbeddedEngine:
    """A transformers model in this process.

    NOTE: a branch's row is [trunk | padding | suffix | decoded]. Padding is masked, and positions
    are counted without it, so a row computes exactly what it would compute alone.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.name = loaded.name
        self.context_tokens = loaded.context_tokens
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._end_ids = loaded.end_ids
        self._format = chat_format(loaded.tokenizer)
        self._tap = RouterTap(loaded.model)
        self._device: torch.device = loaded.model.device

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Routing too, when the model has routers that can be listened to."""
        routing = {Capability.ROUTING} if self._tap.num_layers else set()
        return frozenset({Capability.FORK, Capability.ENTROPY} | routing)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` adds to a trunk."""
        return len(self._format.text_ids(text))

    def open_trunk(self, *, system: str, user: str) -> EmbeddedTrunk:
        """Prefill the system message and the beginning of the user's turn."""
        ids = self._format.head_ids(system, user)
        if not ids:
            raise InputError("there is nothing to ask: the trunk would be empty")
        self._require_room(len(ids))
        num_layers = self._model.config.num_hidden_layers
        trunk = EmbeddedTrunk(trunk_cache(num_layers, len(ids)))
        self._append(trunk, ids)
        return trunk

    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append `text` to the open turn."""
        mine = _mine(trunk)
        ids = self._format.text_ids(text)
        self._require_room(mine.num_tokens + len(ids))
        self._append(mine, ids)
        return len(ids)

    def decode(
        self,
        trunk: Trunk,
        branches: Sequence[Branch],
        on_token: OnToken | None = None,
        *,
        on_routing: OnRouting | None = None,
        cancel: Event | None = None,
    ) -> list[BranchResult]:
        """Decode all branches as one batch."""
        require_for(self, branches)
        mine = _mine(trunk)
        states = [self._state(branch, on_token) for branch in branches]
        for state in states:
            need = len(state.suffix_ids) + state.branch.sampling.max_new_tokens
            self._require_room(mine.num_tokens + need)
        if states:
            with torch.inference_mode(), _as_engine_errors():
                self._run(mine, states)
        return [state.result(mine.num_tokens, self._tap) for state in states]

    def close_trunk(self, trunk: Trunk) -> None:
        """Free the trunk's keys and values."""
        _mine(trunk).cache = None

    def _append(self, trunk: EmbeddedTrunk, ids: Sequence[int]) -> None:
        start = trunk.num_tokens
        try:
            with torch.inference_mode(), _as_engine_errors():
                for at in range(0, len(ids), _PREFILL_CHUNK_TOKENS):
                    chunk = torch.tensor([ids[at : at + _PREFILL_CHUNK_TOKENS]])
                    positions = start + at + torch.arange(chunk.shape[1])[None]
                    self._forward(chunk, positions, None, trunk.cache)
            trunk.num_tokens = start + len(ids)
        finally:
            rewind(trunk.cache, trunk.num_tokens)

    def _run(self, trunk: EmbeddedTrunk, states: list[BranchState]) -> None:
        """Prefill the suffixes, then step until every branch is done."""
        ids_BS, is_real_BS = _left_padded([state.suffix_ids for state in states])
        room = ids_BS.shape[1] + max(state.branch.sampling.max_new_tokens for state in states)
        cache = forked(trunk.cache, len(states), room)
        positions_BS = trunk.num_tokens + (is_real_BS.cumsum(-1) - 1).clamp(min=0)
        mask_BT = torch.ones(len(states), trunk.num_tokens + room, dtype=torch.bool)
        mask_BT[:, trunk.num_tokens : trunk.num_tokens + ids_BS.shape[1]] = is_real_BS
        length = trunk.num_tokens + ids_BS.shape[1]
        logits_BV = self._forward(ids_BS, positions_BS, mask_BT[:, :length], cache)
        active = states
        with self._tap.listening():
            while True:
                self._step(active, logits_BV)
                rows = [row for row, state in enumerate(active) if state.finish_reason is None]
                if not rows:
                    return
                if len(rows) < len(active):
                    keep_rows(cache, torch.tensor(rows, device=self._device))
                    mask_BT = mask_BT[rows]
                    active = [active[row] for row in rows]
                length += 1
                ids_B1 = torch.tensor([[state.token_ids[-1]] for state in active])
                positions_B1 = torch.tensor(
                    [[trunk.num_tokens + state.num_tokens - 1] for state in active]
                )
                logits_BV = self._forward(ids_B1, positions_B1, mask_BT[:, :length], cache)
                for state, token in zip(active, self._tap.take(), strict=False):
                    state.add_routing(token)

    def _step(self, active: Sequence[BranchState], logits_BV: torch.Tensor) -> None:
        entropies = entropy_nats(logits_BV).tolist()
        for state, logits_V, entropy in zip(active, logits_BV, entropies, strict=True):
            if entropy != entropy:
                raise EngineError(
                    f"{self.name} computed NaN logits for voice {state.branch.voice!r}",
                    hint="load it with another dtype, or run `veche verify` on the checkpoint",
                )
            state.step(logits_V, entropy, self._end_ids)

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: Any,
    ) -> torch.Tensor:
        """Append `ids` to the cache; return float32 logits [B, V] of the last position."""
        output = self._model(
            input_ids=ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=None if mask is None else mask.to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _state(self, branch: Branch, on_token: OnToken | None) -> BranchState:
        return BranchState(
            branch,
            suffix_ids=self._format.suffix_ids(branch.instruction),
            decode=self._text_of,
            device=self._device,
            on_token=on_token,
        )

    def _text_of(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _require_room(self, num_tokens: int) -> None:
        if num_tokens > self.context_tokens:
            raise InputError(
                f"{num_tokens} tokens are needed, but {self.name} has a context of "
                f"{self.context_tokens}",
                hint="ask something shorter, or allow fewer new tokens",
            )


def _mine(trunk: Trunk) -> EmbeddedTrunk:
    if not isinstance(trunk, EmbeddedTrunk) or trunk.cache is None:
        raise ValueError("this trunk was closed, or opened by another engine")
    return trunk


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and which of them are real, [B, S] each; padding repeats no one's token: 0."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    is_real = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row)
        is_real[index, width - len(row) :] = True
    return ids, is_real


@contextmanager
def _as_engine_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the GPU's memory is full: {str(error).splitlines()[0]}",
            hint="use fewer voices, a shorter trunk or a smaller model",
        ) from error
