"""Read a council's question before anyone answers it; an event says what was read."""

from collections.abc import Sequence
from typing import Any

from veche.core.transcript import Transcript
from veche.engines.protocol import Engine
from veche.roles.host import require_trained_on
from veche.roles.intent.file import TrainedIntents, load_intents
from veche.roles.intent.reader import Reading
from veche.roles.intent.states import read_states
from veche.roles.registry import Registry
from veche.roles.role import Role

_DIGITS = 4


def reading_for(
    engine: Engine, registry: Registry, roles: Sequence[Role], question: str
) -> tuple[str, Reading] | None:
    """Return a council's reader and what it reads a question as; None where none sits in it.

    Raises:
        RoleError: what it reads with is not in the registry.
        CheckpointError: it is damaged.
        VecheError: as `read_question`.
    """
    for role in roles:
        if role.kind == "reader" and role.probe is not None:
            trained = load_intents(registry.folder(role.probe))
            return role.name, read_question(engine, trained, question)
    return None


def read_question(engine: Engine, trained: TrainedIntents, question: str) -> Reading:
    """Return what a question is read as.

    Args:
        engine: that runs the model which the reader was trained on.
        trained: the reader.
        question: what is asked.

    Raises:
        UnsupportedError: the engine runs another model, or can't look inside it.
        InputError: the question is empty or longer than the context.
    """
    require_trained_on(trained.base_hash, engine)
    states_NF = read_states(engine, [question], trained.reader.layers)
    return trained.reader.read([question], states_NF)[0]


def report_question(transcript: Transcript, voice: str, reading: Reading) -> None:
    """Append a STATE_DELTA of the reader's; nobody who answers is told of it."""
    transcript.append("STATE_DELTA", voice=voice, step="question", question=as_dict(reading))


def as_dict(reading: Reading) -> dict[str, Any]:
    """Return a reading as JSON values."""
    return {
        "intent": reading.intent,
        "confidence": round(reading.confidence, _DIGITS),
        "is_in_scope": reading.is_in_scope,
        "in_scope": round(reading.in_scope, _DIGITS),
        "runners_up": [
            {"intent": intent, "confidence": round(confidence, _DIGITS)}
            for intent, confidence in reading.runners_up
        ],
    }
