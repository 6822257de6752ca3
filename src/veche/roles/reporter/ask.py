"""Let a model report on reasoning: constrained JSON, with the confidence of its own logits."""

from collections.abc import Sequence
from dataclasses import dataclass

from veche.core.language import Language
from veche.core.progress import Progress, Silent
from veche.engines.protocol import BranchResult, Capability, Capture, Engine, Sampling, require
from veche.roles.data.example import Example
from veche.roles.probe.steps import steps_of
from veche.roles.reporter.confidence import DigitTokens
from veche.roles.reporter.reading import reading_text
from veche.roles.reporter.report import InvalidReport, Report, parse_report, report_schema
from veche.roles.speaker import Speaker, own_instruction

MAX_TOKENS = 256
"""No report has as many characters, so that one held to its schema is never cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What came of one reading.

    Attributes:
        report: what was reported, or why it is no report.
        confidence: that the answer is right, in [0, 1]: the expectation of the digit; None where
            the report has no digit.
        num_tokens: of the report.
    """

    report: Report | InvalidReport
    confidence: float | None
    num_tokens: int

    @property
    def is_valid(self) -> bool:
        """Whether it is a report."""
        return isinstance(self.report, Report)


def report_on(
    engine: Engine,
    examples: Sequence[Example],
    reporter: Speaker,
    digits: DigitTokens,
    *,
    language: Language | None = None,
    is_constrained: bool = True,
    progress: Progress | None = None,
) -> list[Reported]:
    """Let a role report on answered examples, in their order.

    What is read is the trunk, without the role's adapter; the adapter acts from its invocation on.

    Args:
        engine: with LOGITS, and with JSON if reports are constrained.
        examples: each with an answer.
        reporter: the role, ready to speak.
        digits: of the engine's tokenizer.
        language: of the words around what is read; None is each example's own.
        is_constrained: whether a report is held to its schema; without it, a model shows whether
            it has learnt the format.
        progress: told of each report.

    Raises:
        UnsupportedError: the engine lacks a capability.
        InputError: an example is longer than the context.
    """
    require(engine, Capability.LOGITS, *([Capability.JSON] if is_constrained else []))
    with (progress or Silent()).task("report", total=len(examples)) as advance:
        reports = []
        for example in examples:
            spoken = language or example.language or "en"
            result = _decoded(engine, example, reporter, spoken, is_constrained=is_constrained)
            reports.append(
                Reported(
                    report=parse_report(result.text, len(steps_of(example))),
                    confidence=digits.confidence(result),
                    num_tokens=len(result.token_ids),
                )
            )
            advance(1)
    return reports


def _decoded(
    engine: Engine,
    example: Example,
    reporter: Speaker,
    language: Language,
    *,
    is_constrained: bool,
) -> BranchResult:
    schema = report_schema(len(steps_of(example))) if is_constrained else None
    branch = reporter.branch(
        voice=reporter.role.name,
        instruction=own_instruction(reporter.role, language),
        sampling=Sampling(max_new_tokens=MAX_TOKENS),
        json_schema=schema,
        capture=Capture(routing=False, logits=True),
    )
    trunk = engine.open_trunk(system="", user=reading_text(example, language))
    try:
        (result,) = engine.decode(trunk, [branch])
    finally:
        engine.close_trunk(trunk)
    return result
