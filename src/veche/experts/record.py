"""Run documents through an engine, and keep where their tokens were sent.

NOTE: a document is kept whole or not at all, and files are only ever added, each under its name
when it is complete. So whatever ends a recording, running it again goes on behind the last file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from veche.core.errors import InputError, OutputError, UnsupportedError
from veche.core.files import read_json_object, remove_partials, sole_writer, write_json
from veche.core.progress import Advance, Progress, Silent
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    Capture,
    Engine,
    Sampling,
    Trunk,
    require,
    scoring,
)
from veche.experts.inputs import Item
from veche.experts.recording import Record, Recording, Source, joined, recorded
from veche.experts.store import files_of, records_in, save_recording, shard_path
from veche.experts.token_classes import class_numbers
from veche.experts.vocabulary import Vocabulary

INDEX_NAME = "recording.json"
_SCHEMA = 1
_TOKENS_A_FILE = 2048
"""Enough that a file's header weighs little; what a kill can lose at most."""
_MARGIN_TOKENS = 8
_SHOWN_LETTERS = 60
_FIRST_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """What is recorded, and how.

    Attributes:
        max_tokens: decoded for a prompt that has no answer.
        window_tokens: a longer text is read in pieces of about so many tokens.
        weights: keep routing weights: 2 B an expert and token.
        router_logits: keep the logits of every expert: 2 B an expert, chosen or not, and token.
        seed: of the answers' sampling.
        temperature: of the answers' sampling; 0 is greedy.
        engine: the name of the engine that runs the model: others round otherwise.
    """

    max_tokens: int = 64
    window_tokens: int = 512
    weights: bool = False
    router_logits: bool = False
    seed: int = 0
    temperature: float = 0.0
    engine: str = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a recording did: documents that were there already, that were added, and tokens."""

    num_kept: int
    num_added: int
    num_tokens: int
    num_bytes: int

    def as_dict(self) -> dict[str, int]:
        """Return the keys of `--json`."""
        return {
            "documents": self.num_kept + self.num_added,
            "documents_kept": self.num_kept,
            "tokens_added": self.num_tokens,
            "bytes": self.num_bytes,
        }


def record(
    engine: Engine,
    items: Sequence[Item],
    folder: Path,
    *,
    source: Source,
    settings: RecordSettings,
    vocabulary: Vocabulary | None = None,
    progress: Progress | None = None,
) -> Recorded:
    """Record documents into a folder; those that are there already are left as they are.

    Args:
        engine: the model.
        items: the documents.
        folder: new, or a recording with the same model and settings.
        source: what is kept of the model.
        settings: what is recorded, and how.
        vocabulary: of the model's tokens, for their classes; without it they have none.
        progress: who watches.

    Raises:
        UnsupportedError: the engine reports no routing, or not what is asked for.
        OutputError: the folder holds something else.
        InputError: a document does not fit into the model's context.
    """
    needed = [Capability.ROUTING]
    require(engine, *needed, *([Capability.ROUTER_LOGITS] if settings.router_logits else []))
    _require_free(folder)
    with sole_writer(folder / INDEX_NAME):
        _require_same(folder, source, settings)
        remove_partials(folder)
        before = files_of(folder)
        kept = {found.document for file in before for found in records_in(file)}
        waiting = [item for item in items if item.name not in kept]
        reader = _Reader(engine, settings, source, vocabulary)
        with (progress or Silent()).task("record", total=len(items)) as advance:
            advance(len(items) - len(waiting))
            added = _write(reader, waiting, folder, len(before), advance)
    files = files_of(folder)
    return Recorded(
        num_kept=len(items) - len(waiting),
        num_added=len(waiting),
        num_tokens=added,
        num_bytes=sum(file.stat().st_size for file in files),
    )


def _require_free(folder: Path) -> None:
    """Refuse a folder that holds something, but no recording."""
    if folder.is_dir() and not (folder / INDEX_NAME).is_file():
        if any(path.name != f".{INDEX_NAME}.lock" for path in folder.iterdir()):
            raise OutputError(
                f"{folder} holds something else than a recording", hint="name a new folder"
            )
    elif folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder", hint="name a new folder")


def _require_same(folder: Path, source: Source, settings: RecordSettings) -> None:
    """Begin a recording, or refuse to go on with one of another model or other settings."""
    index = folder / INDEX_NAME
    # The model's name is only what the user called it this time.
    mine = {**asdict(source), "layers": list(source.layers), "settings": asdict(settings)}
    if not index.is_file():
        write_json(index, {"schema": _SCHEMA, **mine})
        return
    theirs = read_json_object(index)
    for key in ("identity", "settings"):
        if theirs.get(key) != mine[key]:
            raise OutputError(
                f"{folder} was recorded with another {'model' if key == 'identity' else key}: "
                f"{_first_difference(theirs.get(key), mine[key])}",
                hint="name a new folder, or record with the same ones",
            )


def _first_difference(theirs: Any, mine: Any) -> str:
    if not isinstance(theirs, Mapping) or not isinstance(mine, Mapping):
        return f"{str(theirs)[:12]}, not {str(mine)[:12]}"
    for key, value in mine.items():
        if theirs.get(key) != value:
            return f"{key} {theirs.get(key)!r}, not {value!r}"
    return "unknown ones"


def _write(
    reader: "_Reader", items: Sequence[Item], folder: Path, num_files: int, advance: Advance
) -> int:
    """Write files of some thousand tokens; what is complete when it is stopped is kept."""
    waiting: list[Recording] = []
    tokens = 0

    def flush() -> None:
        nonlocal num_files
        if waiting:
            save_recording(shard_path(folder, num_files), joined(waiting))
            num_files += 1
            waiting.clear()

    try:
        for item in items:
            parts = list(reader.read(item))
            waiting += parts
            tokens += sum(part.num_tokens for part in parts)
            if sum(part.num_tokens for part in waiting) >= _TOKENS_A_FILE:
                flush()
            advance(1)
    finally:
        flush()
    return tokens


class _Reader:
    """Asks the engine for one document after another."""

    def __init__(
        self,
        engine: Engine,
        settings: RecordSettings,
        source: Source,
        vocabulary: Vocabulary | None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._source = source
        self._vocabulary = vocabulary

    def read(self, item: Item) -> Iterator[Recording]:
        """Yield what was recorded of a document: at least one record, maybe without tokens."""
        results = self._text(item.text) if item.text is not None else self._dialogue(item)
        try:
            for voice, result in results:
                yield self._recording(item, voice, result)
        except UnsupportedError:
            raise
        except InputError as error:
            begins = (item.text or item.messages[-1].text)[:_SHOWN_LETTERS]
            raise InputError(
                f"the document with {begins!r} cannot be recorded: {error.message}",
                hint="shorten it or leave it out; what was recorded before it is kept",
            ) from error

    def _text(self, text: str) -> Iterator[tuple[str, BranchResult]]:
        """Read a text in pieces; the first word of each is what the rest is read behind."""
        engine = scoring(self._engine)
        for piece in self._pieces(text):
            first = _FIRST_WORD.match(piece)
            cut = first.end() if first and first.end() < len(piece) else max(1, len(piece) // 2)
            trunk = engine.open_text(piece[:cut])
            try:
                branch = self._branch("text", "")
                yield "text", engine.score(trunk, [branch], [piece[cut:]])[0]
            finally:
                engine.close_trunk(trunk)

    def _pieces(self, text: str) -> Iterator[str]:
        limit = min(self._settings.window_tokens, self._engine.context_tokens - _MARGIN_TOKENS)
        while len(text.strip()) > 1:
            cut = self._fitting(text, limit)
            yield text[:cut]
            text = text[cut:]

    def _fitting(self, text: str, limit: int) -> int:
        """Return how many of the text's letters have at most `limit` tokens; it ends at a word."""
        if self._engine.count_tokens(text) <= limit:
            return len(text)
        low, high = 2, len(text)
        while high - low > 1:
            middle = (low + high) // 2
            if self._engine.count_tokens(text[:middle]) <= limit:
                low = middle
            else:
                high = middle
        at_space = text.rfind(" ", low // 2, low)
        return at_space if at_space > 1 else low

    def _dialogue(self, item: Item) -> Iterator[tuple[str, BranchResult]]:
        """Read given answers behind each other; the last question, if it has none, is answered."""
        system, turns = _turns(item)
        trunk = self._engine.open_trunk(system=system, user=turns[0][0])
        try:
            for index, (question, answer) in enumerate(turns):
                is_last = index == len(turns) - 1
                branch = replace(
                    self._branch("assistant", question if index else ""), keep=not is_last
                )
                result = self._answer(trunk, branch, answer)
                yield "assistant", result
                if result.trunk is not None:
                    self._engine.close_trunk(trunk)
                    trunk = result.trunk
        finally:
            self._engine.close_trunk(trunk)

    def _answer(self, trunk: Trunk, branch: Branch, answer: str | None) -> BranchResult:
        if answer is None:
            return self._engine.decode(trunk, [branch])[0]
        return scoring(self._engine).score(trunk, [branch], [answer])[0]

    def _branch(self, voice: str, instruction: str) -> Branch:
        return Branch(
            voice=voice,
            instruction=instruction,
            sampling=Sampling(
                max_new_tokens=self._settings.max_tokens,
                temperature=self._settings.temperature,
                seed=self._settings.seed,
            ),
            capture=Capture(router_logits=self._settings.router_logits),
        )

    def _recording(self, item: Item, voice: str, result: BranchResult) -> Recording:
        routing = result.routing
        if routing is None:
            raise UnsupportedError(
                f"engine {self._engine.name!r} reports no routing of this model",
                hint="record a mixture-of-experts model",
            )
        num_tokens = len(routing.expert_ids)
        ids = result.token_ids[:num_tokens]
        note = Record(
            document=item.name, voice=voice, num_tokens=num_tokens, labels=dict(item.labels)
        )
        found = recorded(
            routing, note, token_ids=ids, token_classes=self._classes(ids), source=self._source
        )
        return found if self._settings.weights else replace(found, weights=None)

    def _classes(self, ids: Sequence[int]) -> Any:
        if self._vocabulary is None:
            return None
        texts, control = self._vocabulary.texts(ids), self._vocabulary.is_control(ids)
        return np.array(class_numbers(texts, control), np.uint8)


def _turns(item: Item) -> tuple[str, list[tuple[str, str | None]]]:
    """Return the system message, and each question with its answer, None where there is none."""
    system = "".join(message.text for message in item.messages if message.speaker == "system")
    spoken = [message.text for message in item.messages if message.speaker != "system"]
    answers: list[str | None] = [*spoken[1::2]]
    if len(spoken) % 2:
        answers.append(None)
    return system, list(zip(spoken[::2], answers, strict=True))


def require_readable(engine: Engine, items: Sequence[Item]) -> None:
    """Refuse documents that this engine cannot record, before any of them is.

    Raises:
        UnsupportedError: a text or a given answer needs an engine that can read.
        InputError: there is nothing to record.
    """
    if not items:
        raise InputError("there is nothing to record")
    is_read = any(
        item.text is not None or any(m.speaker == "assistant" for m in item.messages)
        for item in items
    )
    if is_read:
        scoring(engine)
    if any(len(_turns(item)[1]) > 1 for item in items if item.text is None):
        require(engine, Capability.KEEP)
