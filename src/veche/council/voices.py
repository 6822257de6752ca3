"""Who sits in the council: a voice is a name, a part to play, and a prompt."""

from dataclasses import dataclass
from typing import Literal

from veche.core.language import Phrase

VoiceKind = Literal["drafter", "objector", "synthesiser", "observer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One voice over the shared model.

    Attributes:
        name: how transcripts and results call it.
        kind: a drafter drafts; an objector drafts and objects; a synthesiser writes the answer; an
            observer reports measurements, and no model speaks for it.
        titles: how people call it.
        prompts: how it should think; put before each task that it is given.
        temperature: of its sampling; 0 is greedy.
    """

    name: str
    kind: VoiceKind
    titles: Phrase
    prompts: Phrase
    temperature: float = 0.0


def default_voices() -> tuple[Voice, ...]:
    """Return three who draft blind, one of whom objects; one who writes; one who watches."""
    return (PROPOSER, LOGICIAN, OBJECTOR, SYNTHESISER, OBSERVER)


PROPOSER = Voice(
    name="proposer",
    kind="drafter",
    titles={"en": "Proposer", "ru": "Предлагающий"},
    prompts={"en": "Be direct and concrete.", "ru": "Говори прямо и конкретно."},
    temperature=0.5,
)
# Greedy: one draft is always the model's own best guess, whatever the others sample.
LOGICIAN = Voice(
    name="logician",
    kind="drafter",
    titles={"en": "Logician", "ru": "Логик"},
    prompts={"en": "Explain your reasoning.", "ru": "Объясни своё рассуждение."},
)
OBJECTOR = Voice(
    name="objector",
    kind="objector",
    titles={"en": "Objector", "ru": "Возражающий"},
    prompts={
        "en": "Be careful and exact.",
        "ru": "Будь внимателен и точен.",
    },
    temperature=0.5,
)
SYNTHESISER = Voice(
    name="synthesiser",
    kind="synthesiser",
    titles={"en": "Synthesiser", "ru": "Сводящий"},
    prompts={"en": "Be fair and exact.", "ru": "Будь справедлив и точен."},
)
OBSERVER = Voice(
    name="observer",
    kind="observer",
    titles={"en": "Observer", "ru": "Наблюдатель"},
    prompts={"en": "", "ru": ""},
)
