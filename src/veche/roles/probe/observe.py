"""Let a model read texts, and note what was seen inside it, step by step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.engines.protocol import (
    Branch,
    Capability,
    Capture,
    Engine,
    ScoringEngine,
    Trunk,
    local,
    require,
    scoring,
)
from veche.experts.metrics import load
from veche.roles.data.dialogue import UNASKED, system_and_turns
from veche.roles.data.example import Example, Message
from veche.roles.probe.observation import Observation
from veche.roles.probe.observation_cache import ObservationCache, text_hash
from veche.roles.probe.reading import StepReading, reading_of
from veche.roles.probe.scalars import scalars_of
from veche.roles.probe.steps import joined, step_of_characters, steps_of

NEEDED_LIVE = (Capability.LOGPROBS, Capability.ENTROPY, Capability.HIDDEN_STATES)
NEEDED = (Capability.SCORE, *NEEDED_LIVE)
NUM_TOP = 2
_BEGINNING = "\n"
"""What a question alone stands behind, so that its first token is predicted from something."""
_ROWS = 32
_TOKENS = 2048
"""Of one batch, padding included: more would need memory, and compute no faster."""
_PART = 128
"""Texts that an interrupted pass may have to read again."""


def observe(
    engine: Engine,
    examples: Sequence[Example],
    layers: Sequence[int],
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> list[Observation]:
    """Read the last message of each example, and return what was seen, in their order.

    An answer is read behind its dialogue, as the assistant's; answers to one dialogue share its
    trunk as branches of one batch. A question without an answer is read as a plain text, as one
    step.

    Args:
        engine: with SCORE, LOGPROBS, ENTROPY and HIDDEN_STATES; routing is noted if it can.
        examples: read in any order; those that were read before are not read again.
        layers: whose hidden states are noted; see `Capture.hidden_layers`.
        progress: told of each text.
        cache: a folder for readings, by model, layers and text; None keeps none.

    Raises:
        UnsupportedError: the engine can't look inside its model.
        InputError: a text is empty or longer than the context, or a layer does not exist.
    """
    require(engine, *NEEDED)
    layers = tuple(layers)
    shelf = (
        None
        if cache is None
        else ObservationCache(cache, identity=local(engine).identity, layers=layers)
    )
    keys = [text_hash(example) for example in examples]
    known = {key: found for key in keys if shelf is not None and (found := shelf.get(key))}
    waiting = {
        key: example for key, example in zip(keys, examples, strict=True) if key not in known
    }
    unsaved: dict[str, StepReading] = {}
    with (progress or Silent()).task("read the examples", total=len(waiting)) as advance:
        for read in _read(scoring(engine), waiting, layers):
            known.update(read)
            unsaved.update(read)
            if shelf is not None and len(unsaved) >= _PART:
                shelf.add(unsaved)
                unsaved = {}
            advance(len(read))
    if shelf is not None and unsaved:
        shelf.add(unsaved)
    return [observation_of(known[key]) for key in keys]


def observation_of(reading: StepReading) -> Observation:
    """Return what was seen, in the form that probes take."""
    scalars, names = scalars_of(reading)
    return Observation(
        hidden=reading.hidden.astype(np.float32),
        scalars=scalars,
        scalar_names=names,
        load=None if reading.counts is None else load(reading.counts).astype(np.float32),
        num_tokens=reading.num_tokens,
    )


def capture_of(engine: Engine, layers: Sequence[int]) -> Capture:
    """Return what an engine is asked for."""
    has_routers = Capability.ROUTER_LOGITS in engine.capabilities
    return Capture(
        routing=has_routers,
        router_logits=has_routers,
        logprobs=NUM_TOP,
        hidden_layers=tuple(layers),
    )


def _read(
    engine: ScoringEngine, examples: dict[str, Example], layers: Sequence[int]
) -> Iterator[dict[str, StepReading]]:
    """Yield readings, batch by batch; texts of one dialogue together, short ones first."""
    dialogues: dict[tuple[Message, ...], list[str]] = {}
    for key, example in examples.items():
        is_answer = example.messages[-1].role == "assistant"
        dialogues.setdefault(example.messages[:-1] if is_answer else (), []).append(key)
    capture = capture_of(engine, layers)
    for dialogue, keys in dialogues.items():
        with _trunk(engine, dialogue) as trunk:
            for batch in _batches(engine, {key: examples[key] for key in keys}):
                branches = [Branch(voice=key, instruction="", capture=capture) for key in batch]
                texts = [joined(steps) for steps in batch.values()]
                results = engine.score(trunk, branches, texts)
                yield {
                    key: reading_of(result, step_of_characters(result.text, steps), len(steps))
                    for (key, steps), result in zip(batch.items(), results, strict=True)
                }


def _batches(
    engine: Engine, examples: Mapping[str, Example]
) -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield texts of like length together: a batch's rows are as long as its longest."""
    texts = {key: steps_of(example) for key, example in examples.items()}
    lengths = {key: engine.count_tokens(joined(steps)) for key, steps in texts.items()}
    batch: dict[str, tuple[str, ...]] = {}
    for key in sorted(texts, key=lambda key: lengths[key]):
        if lengths[key] > engine.context_tokens:
            raise InputError(
                f"a text of {examples[key].group!r} has {lengths[key]} tokens, but {engine.name} "
                f"has a context of {engine.context_tokens}",
                hint="leave the example out, or use a model with a longer context",
            )
        if batch and (len(batch) == _ROWS or (len(batch) + 1) * lengths[key] > _TOKENS):
            yield batch
            batch = {}
        batch[key] = texts[key]
    if batch:
        yield batch


@contextmanager
def _trunk(engine: ScoringEngine, dialogue: tuple[Message, ...]) -> Iterator[Trunk]:
    """Open the dialogue that answers stand behind; nothing is kept when the block ends."""
    trunks = [_opened(engine, dialogue)]
    try:
        for message in system_and_turns(dialogue)[1][1:]:
            if message.role == "assistant":
                said = Branch(
                    voice="past", instruction="", capture=Capture(routing=False), keep=True
                )
                kept = engine.score(trunks[-1], [said], [message.content])[0].trunk
                assert kept is not None  # noqa: S101 - asked for
                trunks.append(kept)
            else:
                engine.extend_trunk(trunks[-1], message.content)
        yield trunks[-1]
    finally:
        for trunk in trunks:
            engine.close_trunk(trunk)


def _opened(engine: ScoringEngine, dialogue: tuple[Message, ...]) -> Trunk:
    if not dialogue:
        return engine.open_text(_BEGINNING)
    system, turns = system_and_turns(dialogue)
    return engine.open_trunk(system=system, user=(turns or (UNASKED,))[0].content)
