"""One prefilled trunk, and a batch of branches decoded behind it. This is the embedded engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import torch

from veche.core.errors import EngineError, InputError
from veche.engines.chat_format import chat_format
from veche.engines.constraint import Grammars
from veche.engines.embedded.branch_state import BranchState
from veche.engines.embedded.decoding import CHUNK_TOKENS, Decoding
from veche.engines.embedded.forward import Runner
from veche.engines.embedded.kv_cache import Segment, rounded_up
from veche.engines.embedded.loading import LoadedModel
from veche.engines.embedded.memory_budget import MemoryBudget
from veche.engines.embedded.observations import Observations
from veche.engines.embedded.reading import Reading
from veche.engines.embedded.snapshot import Shape, Snapshot, read_snapshot, write_snapshot
from veche.engines.embedded.trunk import EmbeddedTrunk, Turn, open_rows
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    OnRouting,
    OnToken,
    Trunk,
    require_for,
)
from veche.engines.sole_use import SoleUse, one_at_a_time

_ALWAYS = frozenset(Capability) - {
    Capability.ROUTING,
    Capability.ROUTER_LOGITS,
    Capability.NUM_EXPERTS_PER_TOK,
    Capability.STEERING,
}


class EmbeddedEngine:
    """A transformers model in this process.

    NOTE: threads that ask at once are served one after another: hooks and adapters that one answer
    puts in place act on every token that the model reads meanwhile.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.sole_use = SoleUse()
        self.name = loaded.name
        self.context_tokens = loaded.context_tokens
        self._loaded = loaded
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._end_ids = loaded.end_ids
        self._format = chat_format(loaded.tokenizer)
        self._runner = Runner(loaded.model)
        self._runner.pack(loaded.packing_bytes)
        self._grammars = Grammars(
            self._guided_tokenizer, vocab_size=self._runner.vocab_size, extra="model"
        )
        self.memory = MemoryBudget(loaded.memory_bytes, self._runner.kv_bytes_per_token)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Everything, as far as the model has routers that can be listened to and steered."""
        control = self._runner.control
        listens = {Capability.ROUTING, Capability.ROUTER_LOGITS} if control.num_layers else set()
        steers = {Capability.NUM_EXPERTS_PER_TOK, Capability.STEERING}
        return _ALWAYS | listens | (steers if control.is_steerable else set())

    @property
    def base_hash(self) -> str:
        """Content hash of the checkpoint that it loaded."""
        return self._loaded.base_hash

    @property
    def identity(self) -> str:
        """Hash of all that decides what it computes: checkpoint, changes, floating-point type."""
        return self._loaded.content_hash

    @property
    def num_layers(self) -> int:
        """How many layers the model has."""
        return self._runner.num_layers

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` adds to a trunk."""
        return len(self._format.text_ids(text))

    @one_at_a_time
    def open_trunk(self, *, system: str, user: str) -> EmbeddedTrunk:
        """Prefill the system message and the beginning of the user's turn."""
        ids = self._format.head_ids(system, user)
        if not ids:
            raise InputError("there is nothing to ask: the trunk would be empty")
        return self._opened(ids, "user")

    @one_at_a_time
    def open_text(self, text: str) -> EmbeddedTrunk:
        """Prefill a plain text; it begins with the tokenizer's first token of a document."""
        ids = [*self._format.document_ids, *self._format.text_ids(text)]
        if not ids:
            raise InputError("there is nothing to read: the text is empty")
        return self._opened(ids, "text")

    @one_at_a_time
    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append `text` to the open turn."""
        mine = _mine(trunk)
        drop, new = self._appended(mine, text)
        if not new:
            return 0
        self._append(mine, drop, new)
        mine.turn = "text" if mine.turn == "text" else "user"
        return len(new)

    @one_at_a_time
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
        mine = _mine(trunk)
        states = self._states(mine, branches, on_token=on_token, on_routing=on_routing)
        if not states:
            return []
        longest = max(state.branch.sampling.max_new_tokens for state in states)
        self._require_rows(mine, [len(state.suffix_ids) for state in states], longest)
        with self._runner.watched(), _as_engine_errors():
            Decoding(
                self._runner,
                mine.segments,
                states,
                end_ids=self._end_ids,
                keep=lambda state, own: self._keep(mine, state, own),
                cancel=cancel,
            ).run()
        return self._results(mine, states)

    @one_at_a_time
    def score(
        self, trunk: Trunk, branches: Sequence[Branch], answers: Sequence[str]
    ) -> list[BranchResult]:
        """Read an answer for each branch."""
        mine = _mine(trunk)
        ids = [self._format.text_ids(answer) for answer in answers]
        if not all(ids):
            raise InputError("there is nothing to read: an answer is empty")
        states = self._states(mine, branches)
        if not states:
            return []
        lengths = [len(s.suffix_ids) + len(answer) for s, answer in zip(states, ids, strict=True)]
        self._require_rows(mine, lengths, 0)
        with self._runner.watched(), _as_engine_errors():
            Reading(
                self._runner,
                mine.segments,
                states,
                ids,
                keep=lambda state, own: self._keep(mine, state, own),
            ).run()
        return self._results(mine, states)

    def close_trunk(self, trunk: Trunk) -> None:
        """Free the trunk's keys and values; branches that were kept of it stay."""
        _mine(trunk).rows = None

    @one_at_a_time
    def save_trunk(self, trunk: Trunk, path: Path) -> None:
        """Write a trunk to `path`, atomically.

        Raises:
            DiskError: the disk refuses it.
        """
        mine = _mine(trunk)
        snapshot = Snapshot(
            model=self._loaded.content_hash,
            lineage=mine.lineage,
            turn=mine.turn,
            pending=mine.pending,
            token_ids=tuple(mine.token_ids),
            segment=Segment(layers=(), num_tokens=0),
        )
        write_snapshot(path, snapshot, mine.segments)

    @one_at_a_time
    def load_trunk(self, path: Path) -> EmbeddedTrunk:
        """Open what `save_trunk` wrote.

        Raises:
            CheckpointError: the file is missing, damaged, or of another model.
            InputError: it is longer than the context or the memory budget.
        """
        snapshot = read_snapshot(
            path,
            model=self._loaded.content_hash,
            shape=Shape(
                num_layers=self._runner.num_layers,
                num_heads=self._runner.num_kv_heads,
                head_dim=self._runner.head_dim,
                vocab_size=self._runner.vocab_size,
                dtype=self._model.dtype,
            ),
            device=self._runner.device,
        )
        self._require_room(len(snapshot.token_ids))
        self.memory.require(snapshot.segment.num_tokens, f"the trunk in {path}")
        turn: Turn = snapshot.turn  # type: ignore[assignment]  # checked when it was read
        # Of a text of one token, which is pending, nothing is in the cache.
        prefix = (snapshot.segment,) if snapshot.segment.num_tokens else ()
        trunk = EmbeddedTrunk(
            self._runner.rows(prefix, 1, rounded_up(1)),
            turn=turn,
            token_ids=snapshot.token_ids,
            pending=snapshot.pending,
            lineage=snapshot.lineage,
        )
        self.memory.watch(trunk)
        return trunk

    @one_at_a_time
    def load_adapter(self, name: str, folder: Path) -> str:
        """Load a PEFT folder; see `Adapters.load`."""
        return self._runner.adapters.load(name, folder)

    @one_at_a_time
    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        self._runner.adapters.unload(name)

    def _opened(self, ids: Sequence[int], turn: Turn) -> EmbeddedTrunk:
        self._require_room(len(ids))
        capacity = rounded_up(len(ids))
        self.memory.require(capacity, "the trunk")
        trunk = EmbeddedTrunk(self._runner.rows((), 1, capacity), turn=turn)
        self.memory.watch(trunk)
        self._append(trunk, 0, ids)
        return trunk

    def _appended(self, trunk: EmbeddedTrunk, text: str) -> tuple[int, list[int]]:
        """Return how many pending tokens new ones replace, and the new ones for `text`."""
        if trunk.turn != "answer":
            return 0, self._format.text_ids(text)
        if not text:
            return 0, []
        ids = self._format.next_turn_ids(text)
        # The answer's own end token, and the markup that ends an answer, are one.
        return (1, ids) if ids[:1] == trunk.pending_ids[-1:] else (0, ids)

    def _append(self, trunk: EmbeddedTrunk, drop: int, new: Sequence[int]) -> None:
        """Append tokens and feed what is not pending, chunk by chunk; whole, or not at all."""
        # A plain text's last token stays pending: there is always one to predict the next from.
        pending = 1 if trunk.turn == "text" else 0
        rows = open_rows(trunk)
        ids = [*trunk.pending_ids[: trunk.pending - drop], *new]
        total = trunk.num_tokens - drop + len(new)
        self._require_room(total)
        spare = rows.cache.layers[0].capacity - rows.length
        if len(ids) > spare:  # its buffer is then doubled, beside the old one
            self.memory.require(2 * rows.length + len(ids), "the longer trunk")
        fed = ids[: len(ids) - pending]
        with torch.inference_mode(), _as_engine_errors(), rows.whole_or_not_at_all():
            for at in range(0, len(fed), CHUNK_TOKENS):
                self._runner.feed(rows, torch.tensor([fed[at : at + CHUNK_TOKENS]]))
        trunk.token_ids = [*trunk.token_ids[: trunk.num_tokens - drop], *new]
        trunk.pending = pending

    def _states(
        self,
        trunk: EmbeddedTrunk,
        branches: Sequence[Branch],
        *,
        on_token: OnToken | None = None,
        on_routing: OnRouting | None = None,
    ) -> list[BranchState]:
        require_for(self, branches)
        for branch in branches:
            self._require_layers(branch)
        suffixes = [self._suffix_ids(trunk, branch) for branch in branches]
        return [
            BranchState(
                branch,
                suffix_ids=ids,
                adapter_span=self._runner.adapters.span(branch.adapter, ids),
                decode=self._text_of,
                device=self._runner.device,
                observations=Observations(
                    branch.capture,
                    vocab_size=self._runner.vocab_size,
                    hidden_size=int(self._model.config.hidden_size),
                ),
                constraint=None
                if branch.json_schema is None
                else self._grammars.constraint(branch.json_schema),
                on_token=on_token,
                on_routing=on_routing,
            )
            for branch, ids in zip(branches, suffixes, strict=True)
        ]

    def _suffix_ids(self, trunk: EmbeddedTrunk, branch: Branch) -> list[int]:
        drop, new = self._appended(trunk, branch.instruction)
        ids = [*trunk.pending_ids[: trunk.pending - drop], *new]
        if trunk.turn == "user" or (trunk.turn == "answer" and branch.instruction):
            ids += self._format.suffix_ids("")
        return ids

    def _keep(self, trunk: EmbeddedTrunk, state: BranchState, own: Segment) -> None:
        """Make a branch a trunk of its own, behind the segments that it shares."""
        adapter = state.branch.adapter
        kept = EmbeddedTrunk(
            self._runner.rows((*trunk.segments, own), 1, rounded_up(1)),
            turn="text" if trunk.turn == "text" else "answer",
            token_ids=[
                *trunk.token_ids[: trunk.num_tokens - trunk.pending],
                *state.suffix_ids,
                *state.token_ids,
            ],
            pending=1,
            lineage=(
                *trunk.lineage,
                *([] if adapter is None else [self._runner.adapters.named(adapter).content_hash]),
            ),
        )
        self.memory.watch(kept)
        state.kept = kept

    def _results(self, trunk: EmbeddedTrunk, states: Sequence[BranchState]) -> list[BranchResult]:
        reused = trunk.num_tokens - trunk.pending
        return [state.result(reused, self._runner.control) for state in states]

    def _guided_tokenizer(self) -> Any:
        """Return the tokenizer as llguidance reads it."""
        from llguidance.hf import from_tokenizer

        return from_tokenizer(
            self._tokenizer,
            n_vocab=self._runner.vocab_size,
            eos_token=sorted(self._end_ids) or None,
        )

    def _text_of(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _require_rows(self, trunk: EmbeddedTrunk, lengths: Sequence[int], num_new: int) -> None:
        width = max(lengths) + num_new
        self._require_room(trunk.num_tokens - trunk.pending + width)
        self.memory.require(len(lengths) * width, f"decoding {len(lengths)} branches")

    def _require_layers(self, branch: Branch) -> None:
        last = self._runner.num_layers
        for layer in branch.capture.hidden_layers:
            if not 0 <= layer <= last:
                raise InputError(
                    f"hidden states of layer {layer} were asked for, but {self.name} has 0 (the "
                    f"embedding) to {last}"
                )

    def _require_room(self, num_tokens: int) -> None:
        if num_tokens > self.context_tokens:
            raise InputError(
                f"{num_tokens} tokens are needed, but {self.name} has a context of "
                f"{self.context_tokens}",
                hint="ask something shorter, or allow fewer new tokens",
            )


def _mine(trunk: Trunk) -> EmbeddedTrunk:
    if not isinstance(trunk, EmbeddedTrunk) or trunk.rows is None:
        raise ValueError("this trunk was closed, or opened by another engine")
    return trunk


@contextmanager
def _as_engine_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the GPU's memory is full: {str(error).splitlines()[0]}",
            hint="use fewer voices, a shorter trunk or a smaller model",
        ) from error
