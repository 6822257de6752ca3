"""What a council hands back."""

from dataclasses import asdict, dataclass
from typing import Any

from veche.core.language import Language
from veche.core.transcript import Event
from veche.council import readout
from veche.engines.protocol import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class CouncilResult:
    """A finished run: its events, from which all the rest is computed, and its routing."""

    events: tuple[Event, ...]
    routing: dict[str, Routing]
    language: Language

    @property
    def answer(self) -> str:
        """The council's answer; empty when no voice said anything."""
        return readout.answer_of(self.events) or ""

    @property
    def voices(self) -> list[dict[str, str]]:
        """What each voice said last: [{name, text}]."""
        return readout.voices_of(self.events, self.language)

    @property
    def usage(self) -> readout.Usage:
        """What it cost, in tokens."""
        return readout.usage_of(self.events)

    @property
    def bill(self) -> readout.Bill:
        """What the same tokens buy as self-consistency."""
        return readout.bill_of(self.events)

    @property
    def stopped_early(self) -> bool:
        """Whether the drafts agreed."""
        return readout.stopped_early_of(self.events)

    @property
    def observations(self) -> list[dict[str, Any]]:
        """What the observer measured in each step."""
        return readout.observations_of(self.events)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of `veche ask --json`."""
        return {
            "answer": self.answer,
            "voices": self.voices,
            "usage": asdict(self.usage),
            "stopped_early": self.stopped_early,
            "bill": asdict(self.bill),
            "observations": self.observations,
            "messages": [asdict(message) for message in readout.messages_of(self.events)],
        }
