"""Everything that is shown of a council, computed from its transcript and from nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from veche.core.language import Language
from veche.core.transcript import Event

STEPS = ("trunk", "drafts", "objections", "revisions", "synthesis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a run cost, in tokens.

    Attributes:
        prefilled_tokens: prompt tokens that were run through the model: the trunk, what was
            appended to it, and every branch's own instruction.
        reused_tokens: prompt tokens that branches read from the trunk's cache instead.
        decoded_tokens: tokens that were generated, end tokens included.
    """

    prefilled_tokens: int
    reused_tokens: int
    decoded_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the same tokens would buy without a council.

    Attributes:
        trunk_tokens: prefilled once, with or without a council.
        mean_draft_tokens: the mean cost of one blind draft: its instruction and its answer.
        self_consistency_samples: how many independent samples over the same trunk the rest of the
            bill pays for: floor((prefilled − trunk + decoded) / mean draft).
    """

    trunk_tokens: int
    mean_draft_tokens: float
    self_consistency_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One text of one voice in one step; `target` is the draft that an objection is about."""

    step: str
    voice: str
    text: str
    target: str | None
    holds: bool | None


def answer_of(events: Sequence[Event]) -> str | None:
    """Return the answer, or None for a run that did not finish."""
    return next((event.data["answer"] for event in _of(events, "RUN_FINISHED")), None)


def stopped_early_of(events: Sequence[Event]) -> bool:
    """Return whether the council ended after its drafts because they agreed."""
    return any(event.data["stopped_early"] for event in _of(events, "RUN_FINISHED"))


def messages_of(events: Sequence[Event]) -> list[Message]:
    """Return every text in the order in which it was given."""
    return [
        Message(
            step=event.data["step"],
            voice=event.voice or "",
            text=event.data["text"],
            target=event.data.get("target"),
            holds=event.data.get("holds"),
        )
        for event in _of(events, "TEXT_MESSAGE_CONTENT")
    ]


def voices_of(events: Sequence[Event], language: Language) -> list[dict[str, str]]:
    """Return one {name, text} for each voice: what it said last.

    An objector's last word is its objections; the observer's is its measurements, in words.
    """
    started = _of(events, "RUN_STARTED")
    names = [voice["name"] for event in started for voice in event.data["voices"]]
    messages = messages_of(events)
    texts: dict[str, str] = {}
    for name in names:
        mine = [message for message in messages if message.voice == name]
        last = [message for message in mine if message.step == mine[-1].step]
        texts[name] = "\n".join(
            f"{message.target}: {message.text}" if message.target else message.text
            for message in last
        )
    for event in _of(events, "STATE_DELTA"):
        texts[event.voice or ""] = observation_text([event.data], language)
    if observed := _observed(events):
        observations = [event.data for event in observed]
        texts[observed[0].voice or ""] = observation_text(observations, language)
    return [{"name": name, "text": text} for name, text in texts.items()]


def observations_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return what the observer measured, step by step."""
    return [event.data for event in _observed(events)]


def _observed(events: Sequence[Event]) -> list[Event]:
    """Return the observer's events; a reader's one is about the question."""
    return [event for event in _of(events, "STATE_DELTA") if "question" not in event.data]


def usage_of(events: Sequence[Event]) -> Usage:
    """Add up the tokens of all events; also of a run that did not finish."""

    def total(key: str) -> int:
        return sum(event.data.get(key, 0) for event in events)

    return Usage(
        prefilled_tokens=total("prefilled_tokens"),
        reused_tokens=total("reused_tokens"),
        decoded_tokens=total("decoded_tokens"),
    )


def bill_of(events: Sequence[Event]) -> Bill:
    """Compare the run with self-consistency at the same number of tokens."""
    usage = usage_of(events)
    trunk = sum(
        event.data.get("prefilled_tokens", 0)
        for event in _of(events, "STEP_STARTED")
        if event.data["step"] == "trunk"
    )
    drafts = [
        event.data["prefilled_tokens"] + event.data["decoded_tokens"]
        for event in _of(events, "TEXT_MESSAGE_CONTENT")
        if event.data["step"] == "drafts"
    ]
    mean = sum(drafts) / len(drafts) if drafts else 0.0
    spent = usage.prefilled_tokens - trunk + usage.decoded_tokens
    return Bill(
        trunk_tokens=trunk,
        mean_draft_tokens=mean,
        self_consistency_samples=int(spent / mean) if mean else 0,
    )


def observation_text(observations: Iterable[dict[str, Any]], language: Language) -> str:
    """Put what observers and readers report into words: numbers with their names, no opinion."""
    labels = _LABELS[language]
    lines = []
    for delta in observations:
        if "question" in delta:
            lines.append(question_text(delta["question"], language))
            continue
        parts = []
        for key in ("token_entropy", "routing_entropy"):
            if values := delta.get(key):
                figures = ", ".join(f"{voice} {value:.2f}" for voice, value in values.items())
                parts.append(f"{labels[key]}: {figures}")
        if "disagreement" in delta:
            parts.append(f"{labels['disagreement']}: {delta['disagreement']:.2f}")
        parts += _watched(delta, labels)
        if parts:
            lines.append(f"{labels[delta['step']]} — " + "; ".join(parts))
    return "\n".join(lines)


def question_text(question: dict[str, Any], language: Language) -> str:
    """Put into words what a reader took the question for."""
    labels = _LABELS[language]
    known = labels["in_scope" if question["is_in_scope"] else "out_of_scope"]
    told = [(question["intent"], question["confidence"])]
    told += [(other["intent"], other["confidence"]) for other in question["runners_up"]]
    guesses = ", ".join(f"{intent} {confidence:.2f}" for intent, confidence in told)
    return f"{known}, {question['in_scope']:.2f}: {guesses}"


def _watched(delta: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """Put into words what an observer's probe reports."""
    parts = []
    for key in ("confidence", "drift"):
        if values := delta.get(key):
            figures = ", ".join(f"{voice} {value:.2f}" for voice, value in values.items())
            parts.append(f"{labels[key]}: {figures}")
    if named := delta.get("first_bad_step"):
        figures = ", ".join(
            f"{voice} {labels['none'] if step is None else step + 1}"
            for voice, step in named.items()
        )
        parts.append(f"{labels['first_bad_step']}: {figures}")
    return parts


_LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "drafts": "drafts",
        "objections": "objections",
        "revisions": "revisions",
        "synthesis": "synthesis",
        "token_entropy": "token entropy, nats",
        "routing_entropy": "routing entropy, 0–1",
        "disagreement": "disagreement, 0–1",
        "confidence": "probably right, 0–1",
        "drift": "drift of routing, 0–1",
        "first_bad_step": "first doubtful line",
        "none": "none",
        "in_scope": "a known intent",
        "out_of_scope": "probably none of the known intents",
    },
    "ru": {
        "drafts": "черновики",
        "objections": "возражения",
        "revisions": "исправления",
        "synthesis": "сведение",
        "token_entropy": "энтропия токенов, нат",
        "routing_entropy": "энтропия маршрутов, 0–1",
        "disagreement": "несогласие, 0–1",
        "confidence": "вероятно верно, 0–1",
        "drift": "дрейф маршрутов, 0–1",
        "first_bad_step": "первая сомнительная строка",
        "none": "нет",
        "in_scope": "известное намерение",
        "out_of_scope": "вероятно, ни одно из известных намерений",
    },
}


def _of(events: Sequence[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]
