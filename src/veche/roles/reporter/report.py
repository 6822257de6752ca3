"""What the observer reports of a piece of reasoning, as JSON that is held to a schema."""

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veche.core.json_text import parse_json

NextFocus = Literal["question", "step", "answer"]
"""Where to look next: at the question again, at the first wrong step, or on to the answer."""
MAX_CONFIDENCE = 9
MAX_CONTRADICTIONS = 4
_MAX_INTENT = 40
_INTENT = rf"[a-z][a-z0-9_ ]{{0,{_MAX_INTENT - 1}}}"
CONFIDENCE_HEAD = '"confidence": '
CONFIDENCE_TAIL = ', "next_focus": "'
"""What stands before and behind the digit, in the order and spelling of `report_schema`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was reported.

    Attributes:
        intent: what the reasoning is after, a label.
        contradictions: indices of steps that contradict what stands before them.
        first_bad_step: index of the first wrong step; None where none is, or it isn't known.
        confidence: that the answer is right, as a digit: 0 is surely wrong, 9 surely right.
        next_focus: where to look next.
    """

    intent: str
    contradictions: tuple[int, ...]
    first_bad_step: int | None
    confidence: int
    next_focus: NextFocus

    def as_json(self) -> str:
        """Return the line that a model writes; steps are numbered from 1, as it reads them."""
        bad = self.first_bad_step
        return json.dumps(
            {
                "intent": self.intent,
                "contradictions": [step + 1 for step in self.contradictions],
                "first_bad_step": None if bad is None else bad + 1,
                "confidence": self.confidence,
                "next_focus": self.next_focus,
            },
            ensure_ascii=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidReport:
    """A text that is no report; `reason` says why."""

    text: str
    reason: str


def report_schema(num_steps: int) -> dict[str, Any]:
    """Return the JSON schema of a report about so many steps, for `Branch.json_schema`."""
    steps = list(range(1, num_steps + 1))
    # An enum of nothing is no schema: of a text without steps, step 1 is what it has.
    numbers = {"enum": steps or [1]}
    return {
        "type": "object",
        "properties": {
            "intent": {"type": "string", "pattern": f"^{_INTENT}$"},
            "contradictions": {
                "type": "array",
                "items": numbers,
                "maxItems": MAX_CONTRADICTIONS if steps else 0,
            },
            "first_bad_step": {"enum": [None, *steps]},
            "confidence": {"enum": list(range(MAX_CONFIDENCE + 1))},
            "next_focus": {"enum": list(get_args(NextFocus))},
        },
        "required": ["intent", "contradictions", "first_bad_step", "confidence", "next_focus"],
        "additionalProperties": False,
    }


def parse_report(text: str, num_steps: int) -> Report | InvalidReport:
    """Return what a model reported about so many steps, or why that is no report."""
    try:
        value = parse_json(text.encode(errors="replace"))
    except ValueError as error:
        return InvalidReport(text=text, reason=f"it is no JSON: {error}")
    try:
        line = _Line.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return InvalidReport(text=text, reason=f"{place}: {first['msg']}")
    named = [*line.contradictions, *([] if line.first_bad_step is None else [line.first_bad_step])]
    if beyond := [step for step in named if step > num_steps]:
        return InvalidReport(text=text, reason=f"step {beyond[0]} of {num_steps} is named")
    return Report(
        intent=line.intent,
        contradictions=tuple(step - 1 for step in line.contradictions),
        first_bad_step=None if line.first_bad_step is None else line.first_bad_step - 1,
        confidence=line.confidence,
        next_focus=line.next_focus,
    )


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    intent: str = Field(pattern=f"^{_INTENT}$")
    contradictions: list[int] = Field(max_length=MAX_CONTRADICTIONS)
    first_bad_step: int | None = Field(ge=1)
    confidence: int = Field(ge=0, le=MAX_CONFIDENCE)
    next_focus: NextFocus
