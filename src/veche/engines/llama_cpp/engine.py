"""One prefilled trunk in llama.cpp's cache, and a batch of branches decoded behind it."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event

from veche.core.errors import EngineError, InputError
from veche.engines.cancelled import CancelledError
from veche.engines.chat_format import chat_format
from veche.engines.constraint import Grammars
from veche.engines.llama_cpp import snapshot
from veche.engines.llama_cpp.adapters import Adapters
from veche.engines.llama_cpp.branch_state import BranchState
from veche.engines.llama_cpp.cells import Cells
from veche.engines.llama_cpp.cells import Sequence as CacheSequence
from veche.engines.llama_cpp.feeder import Fed, Feeder, Row
from veche.engines.llama_cpp.loading import LoadedGguf
from veche.engines.llama_cpp.trunk import LlamaCppTrunk, Turn, opened
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

_ALWAYS = frozenset(
    {
        Capability.FORK, Capability.ENTROPY, Capability.LOGPROBS, Capability.LOGITS,
        Capability.ADAPTERS, Capability.JSON, Capability.KEEP, Capability.SCORE,
        Capability.SNAPSHOT,
    }
)  # fmt: skip
_ROUTED = frozenset({Capability.ROUTING, Capability.ROUTER_LOGITS})


class LlamaCppEngine:
    """A GGUF model in this process; threads are served one after another.

    NOTE: trunks and branches are sequences of one unified cache. A fork shares its parent's cells;
    only what a sequence appends itself is computed, and `Cells` counts it before that is begun.
    """

    def __init__(self, loaded: LoadedGguf) -> None:
        self.sole_use = SoleUse()
        self.name = loaded.file.stem
        self.context_tokens = min(loaded.trained_tokens, loaded.cache_tokens)
        self._loaded = loaded
        self._vocabulary = loaded.vocabulary
        self._format = chat_format(loaded.vocabulary)
        self._cells = Cells(num_cells=loaded.cache_tokens, max_sequences=loaded.max_sequences)
        self._feeder = Feeder(loaded)
        self._adapters = Adapters(loaded)
        self._grammars = Grammars(
            loaded.vocabulary.guided, vocab_size=loaded.vocabulary.size, extra="llamacpp"
        )
        self._try_out()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Routing too, when the model has routers that can be listened to."""
        return _ALWAYS | (_ROUTED if self._loaded.tap.num_layers else frozenset())

    def close(self) -> None:
        """Free the model and its cache; nothing of this engine may be used afterwards."""
        self._loaded.close()

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` adds to a trunk."""
        return len(self._format.text_ids(text))

    @one_at_a_time
    def open_trunk(self, *, system: str, user: str) -> LlamaCppTrunk:
        """Prefill the system message and the beginning of the user's turn."""
        return self._opened(self._format.head_ids(system, user), "user")

    @one_at_a_time
    def open_text(self, text: str) -> LlamaCppTrunk:
        """Prefill a plain text; it begins with the tokenizer's first token of a document."""
        return self._opened([*self._format.document_ids, *self._format.text_ids(text)], "text")

    @one_at_a_time
    def extend_trunk(self, trunk: Trunk, text: str) -> int:
        """Append `text` to the open turn, or open the user's next one behind an answer."""
        mine, sequence = opened(trunk)
        is_answer = mine.turn == "answer"
        ids = (self._format.next_turn_ids if is_answer else self._format.text_ids)(text)
        self._require_room(mine.num_tokens + len(ids))
        self._cells.require(num_sequences=0, num_tokens=len(ids))
        self._append(mine, sequence, ids)
        if is_answer:
            mine.turn = "user"
        return len(ids)

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
        """Decode all branches as one batch, or as one for each adapter among them."""
        mine, _ = opened(trunk)
        budgets = [branch.sampling.max_new_tokens for branch in branches]
        states = self._forked(mine, branches, budgets, on_token, on_routing)
        trunks: dict[BranchState, LlamaCppTrunk] = {}
        try:
            self._run(mine, states, cancel)
            trunks = {state: self._kept(mine, state) for state in states if state.branch.keep}
        finally:
            self._free(state.sequence for state in states if state not in trunks)
        return [state.result(self._loaded.tap, trunks.get(state)) for state in states]

    @one_at_a_time
    def score(
        self, trunk: Trunk, branches: Sequence[Branch], answers: Sequence[str]
    ) -> list[BranchResult]:
        """Read an answer for each branch; nothing is sampled."""
        mine, _ = opened(trunk)
        if len(branches) != len(answers):
            raise ValueError(f"{len(branches)} branches have {len(answers)} answers")
        texts = [self._format.text_ids(answer) for answer in answers]
        if not all(texts):
            raise InputError("there is nothing to read: an answer is empty")
        states = self._forked(mine, branches, [len(ids) for ids in texts], None, None)
        trunks: dict[BranchState, LlamaCppTrunk] = {}
        try:
            for state, ids in zip(states, texts, strict=True):
                self._read(mine, state, ids)
                if state.branch.keep:
                    trunks[state] = self._kept(mine, state)
        finally:
            self._free(state.sequence for state in states if state not in trunks)
        return [state.result(self._loaded.tap, trunks.get(state)) for state in states]

    @one_at_a_time
    def close_trunk(self, trunk: Trunk) -> None:
        """Free the trunk's sequence; cells that branches kept of it stay."""
        mine, sequence = opened(trunk)
        mine.sequence = None
        self._free([sequence])

    @one_at_a_time
    def save_trunk(self, trunk: Trunk, path: Path) -> None:
        """Write a trunk's state and tokens to `path`, atomically."""
        mine, sequence = opened(trunk)
        snapshot.save(path, mine, sequence, self._loaded)

    @one_at_a_time
    def load_trunk(self, path: Path) -> LlamaCppTrunk:
        """Open what `save_trunk` wrote, with the same model and adapters."""
        trunk, state = snapshot.read(path, self._loaded, self._adapters.hashes())
        self._require_room(trunk.num_tokens)
        self._cells.require(num_sequences=1, num_tokens=trunk.num_tokens)
        sequence = self._cells.open()
        try:
            snapshot.restore(state, sequence, self._loaded)
        except EngineError:
            self._free([sequence])
            raise
        self._cells.extend(sequence, trunk.num_tokens)
        trunk.sequence = sequence
        return trunk

    @one_at_a_time
    def load_adapter(self, name: str, folder: Path) -> str:
        """Load a GGUF LoRA, a file or a folder with one; return its content hash."""
        return self._adapters.load(name, folder)

    @one_at_a_time
    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        self._adapters.unload(name)

    def _try_out(self) -> None:
        """Evaluate one token, which tells what routers there are and whether the model computes."""
        sequence = self._cells.open()
        with self._loaded.tap.learning():
            self._fed(_rows([self._vocabulary.bos_token_id or 0], 0, sequence), None, None)
        self._free([sequence])

    def _opened(self, ids: Sequence[int], turn: Turn) -> LlamaCppTrunk:
        if not ids:
            raise InputError("there is nothing to ask: the trunk would be empty")
        self._require_room(len(ids))
        self._cells.require(num_sequences=1, num_tokens=len(ids))
        sequence = self._cells.open()
        trunk = LlamaCppTrunk(sequence=sequence, turn=turn)
        try:
            self._append(trunk, sequence, ids)
        except BaseException:
            self._free([sequence])
            raise
        return trunk

    def _append(self, trunk: LlamaCppTrunk, sequence: CacheSequence, ids: Sequence[int]) -> None:
        """Prefill tokens at the end of a trunk, all or (at an error) none."""
        if not ids:
            return
        start = trunk.num_tokens
        try:
            fed = self._fed(_rows(ids, start, sequence), None, None)
        except BaseException:
            self._cut(sequence, start)
            raise
        trunk.last_logits = fed.logits[-1]
        trunk.token_ids.extend(ids)
        self._cells.extend(sequence, len(ids))

    def _forked(
        self,
        trunk: LlamaCppTrunk,
        branches: Sequence[Branch],
        num_new: Sequence[int],
        on_token: OnToken | None,
        on_routing: OnRouting | None,
    ) -> list[BranchState]:
        """Fork the trunk for every branch, after all of them were found to fit."""
        require_for(self, branches)
        suffixes = [self._suffix_ids(trunk, branch.instruction) for branch in branches]
        needs = [len(ids) + new for ids, new in zip(suffixes, num_new, strict=True)]
        for branch, need in zip(branches, needs, strict=True):
            self._require_room(trunk.num_tokens + need)
            if branch.adapter is not None:
                self._adapters.named(branch.adapter)
        constraints = [
            None if branch.json_schema is None else self._grammars.constraint(branch.json_schema)
            for branch in branches
        ]
        self._cells.require(num_sequences=len(branches), num_tokens=sum(needs))
        return [
            BranchState(
                branch,
                sequence=self._fork(trunk),
                suffix_ids=ids,
                decode=self._vocabulary.decode,
                constraint=constraint,
                on_token=on_token,
                on_routing=on_routing if self._loaded.tap.num_layers else None,
            )
            for branch, ids, constraint in zip(branches, suffixes, constraints, strict=True)
        ]

    def _run(
        self, trunk: LlamaCppTrunk, states: Sequence[BranchState], cancel: Event | None
    ) -> None:
        """Prefill the suffixes, then step until every branch is done or all are cancelled."""
        active = list(states)
        try:
            self._prefill(trunk, states, cancel)
            with self._listening(states):
                while active:
                    for state in active:
                        state.step(self._vocabulary.is_end)
                    active = [state for state in active if state.finish_reason is None]
                    self._feed_back(active, cancel)
        except CancelledError:
            for state in active:
                if state.finish_reason is None:
                    state.finish("cancelled")

    def _prefill(
        self, trunk: LlamaCppTrunk, states: Sequence[BranchState], cancel: Event | None
    ) -> None:
        """Prefill every suffix; without one, the trunk's last logits are the branch's first."""
        for adapter, group in _by_adapter(states):
            rows: list[Row] = []
            for state in group:
                state.next_logits_V = trunk.last_logits
                rows += _rows(state.suffix_ids, trunk.num_tokens, state.sequence)
            fed = iter(self._fed(rows, adapter, cancel).logits)
            for state in group:
                if state.suffix_ids:
                    state.next_logits_V = next(fed)
                    self._cells.extend(state.sequence, len(state.suffix_ids))

    def _feed_back(self, states: Sequence[BranchState], cancel: Event | None) -> None:
        """Feed each branch the token that it has just picked; note where it was sent."""
        for adapter, group in _by_adapter(states):
            rows = [
                row
                for state in group
                for row in _rows(state.token_ids[-1:], state.sequence.num_tokens, state.sequence)
            ]
            fed = self._fed(rows, adapter, cancel)
            for state, logits_V in zip(group, fed.logits, strict=True):
                self._cells.extend(state.sequence, 1)
                state.next_logits_V = logits_V
            for state, token in zip(group, fed.routing, strict=False):
                state.add_routing(token)

    def _read(self, trunk: LlamaCppTrunk, state: BranchState, ids: Sequence[int]) -> None:
        """Feed a branch's suffix, then its given answer; row t of the logits gives token t + 1."""
        self._prefill(trunk, [state], None)
        rows = _rows(ids, state.sequence.num_tokens, state.sequence, all_logits=True)
        with self._listening([state]):
            fed = self._fed(rows, state.branch.adapter, None)
            self._cells.extend(state.sequence, len(ids))
            for token_id, next_logits_V in zip(ids, fed.logits, strict=True):
                state.read(token_id)
                state.next_logits_V = next_logits_V
            for token in fed.routing:
                state.add_routing(token)
        state.finish("stop")

    def _kept(self, trunk: LlamaCppTrunk, state: BranchState) -> LlamaCppTrunk:
        """Make a trunk of a branch: an end token is dropped, and what was not fed yet is fed."""
        said = state.token_ids[: len(state.token_ids) - state.is_ended_by_token]
        adapter = state.branch.adapter
        kept = LlamaCppTrunk(
            sequence=state.sequence,
            turn="text" if trunk.turn == "text" else "answer",
            token_ids=[*trunk.token_ids, *state.suffix_ids, *said],
            last_logits=state.next_logits_V,
            adapters=trunk.adapters
            | ({self._adapters.named(adapter).content_hash} if adapter else frozenset()),
        )
        start = state.sequence.num_tokens
        if missing := kept.token_ids[start:]:
            self._cut(state.sequence, start)  # of a cancelled evaluation something may be there
            fed = self._fed(_rows(missing, start, state.sequence), adapter, None)
            self._cells.extend(state.sequence, len(missing))
            kept.last_logits = fed.logits[-1]
        return kept

    def _fed(self, rows: Sequence[Row], adapter: str | None, cancel: Event | None) -> Fed:
        self._adapters.use(adapter)
        return self._feeder.feed(rows, cancel)

    def _listening(self, states: Sequence[BranchState]) -> AbstractContextManager[None]:
        return self._loaded.tap.listening(
            is_on=any(state.wants_routing for state in states),
            logits=any(state.branch.capture.router_logits for state in states),
        )

    def _suffix_ids(self, trunk: LlamaCppTrunk, instruction: str) -> list[int]:
        if trunk.turn == "text":
            return self._format.text_ids(instruction)
        if trunk.turn == "user":
            return self._format.suffix_ids(instruction)
        if not instruction:
            return []
        return [*self._format.next_turn_ids(""), *self._format.suffix_ids(instruction)]

    def _fork(self, trunk: LlamaCppTrunk) -> CacheSequence:
        _, parent = opened(trunk)
        child = self._cells.fork(parent)
        lib, memory = self._loaded.lib, self._loaded.memory
        lib.llama_memory_seq_cp(memory, parent.number, child.number, -1, -1)
        return child

    def _cut(self, sequence: CacheSequence, num_tokens: int) -> None:
        """Remove what lies behind the first `num_tokens` tokens of a sequence from the cache."""
        self._loaded.lib.llama_memory_seq_rm(self._loaded.memory, sequence.number, num_tokens, -1)

    def _free(self, sequences: Iterable[CacheSequence]) -> None:
        for sequence in sequences:
            self._cut(sequence, 0)
            self._cells.close(sequence)

    def _require_room(self, num_tokens: int) -> None:
        if num_tokens > self.context_tokens:
            raise InputError(
                f"{num_tokens} tokens are needed, but {self.name} has a context of "
                f"{self.context_tokens}",
                hint="ask something shorter, or allow fewer new tokens",
            )


def _rows(
    ids: Sequence[int], start: int, sequence: CacheSequence, *, all_logits: bool = False
) -> list[Row]:
    """Return tokens as rows that stand one behind another; the last one's logits are wanted."""
    return [
        Row(
            token_id=token_id,
            position=start + index,
            sequence=sequence.number,
            wants_logits=all_logits or index == len(ids) - 1,
        )
        for index, token_id in enumerate(ids)
    ]


def _by_adapter(states: Iterable[BranchState]) -> list[tuple[str | None, list[BranchState]]]:
    """Group branches by the adapter that they use."""
    groups: dict[str | None, list[BranchState]] = {}
    for state in states:
        groups.setdefault(state.branch.adapter, []).append(state)
    return list(groups.items())
