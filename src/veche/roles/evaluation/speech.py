"""Measure how a role speaks: how well it knows the answers of the data, and how often it is right.

Shapes: N examples.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.core.progress import Progress, Silent
from veche.engines.protocol import (
    BranchResult,
    Capability,
    Capture,
    Engine,
    Sampling,
    Trunk,
    require,
    scoring,
)
from veche.roles.data.dialogue import UNASKED, system_and_turns
from veche.roles.data.example import Example, Message
from veche.roles.data.problems.check import is_checkable, is_right
from veche.roles.evaluation.intervals import Statistic
from veche.roles.evaluation.scored import ROLE, Candidate, Note, Prepared
from veche.roles.speaker import Speaker, own_instruction

MODEL = "model"
"""The same prompt without what was trained."""
MAX_TOKENS = 256


def prepare_speech(
    engine: Engine,
    speaker: Speaker,
    examples: Sequence[Example],
    *,
    max_tokens: int = MAX_TOKENS,
    is_alone: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Let a role read and speak, and the model alone with the same prompt; prepare figures.

    nll: of the data's answers, in nats a token; of those that are not known to be wrong.
    accuracy: of its own greedy answers, where the right one is known and can be checked.

    Args:
        engine: with SCORE and LOGPROBS.
        speaker: the role, ready to speak.
        examples: dialogues; those that end with the user's turn have no answer to know.
        max_tokens: of an answer of its own.
        is_alone: leave the model without what was trained out.
        progress: told of each example.

    Raises:
        InputError: no example has an answer to know, or one that can be checked.
        UnsupportedError: the engine can't read what it did not write.
    """
    require(engine, Capability.SCORE, Capability.LOGPROBS)
    known = [e for e in examples if e.is_answered and e.is_right is not False]
    checkable = [e for e in examples if e.final_answer and is_checkable(e.final_answer)]
    if not known and not checkable:
        raise InputError(
            f"{len(examples)} examples have neither an answer that may be right, nor a final one "
            "to check against",
            hint='write {"messages": […, {"role": "assistant", …}]} or "final_answer" a line',
        )
    speakers = {ROLE: speaker} | ({} if is_alone else {MODEL: Speaker(role=speaker.role)})
    num_rows = len(known) + len(checkable)
    candidates = []
    for name, each in speakers.items():
        statistics: dict[str, Statistic] = {}
        if known:
            nll_N2 = _padded(np.array(list(_nlls(engine, each, known, progress))), num_rows, 0)
            statistics["nll"] = _ratio(nll_N2)
        if checkable:
            right = list(_answers_right(engine, each, checkable, max_tokens, progress))
            counted = np.array([[float(is_so), 1.0] for is_so in right])
            statistics["accuracy"] = _ratio(_padded(counted, num_rows, len(known)))
        candidates.append(Candidate(name=name, statistics=statistics))
    return Prepared(
        measures="speech",
        candidates=tuple(candidates),
        groups=tuple(example.group for example in (*known, *checkable)),
        headline="accuracy" if checkable else "nll",
        notes=tuple(_notes(examples, known, checkable)),
    )


def _notes(
    examples: Sequence[Example], known: Sequence[Example], checkable: Sequence[Example]
) -> Iterator[Note]:
    if known:
        yield Note(key="read", values={"count": len(known)})
    if checkable:
        yield Note(key="answered", values={"count": len(checkable)})
    if unused := [e for e in examples if e not in known and e not in checkable]:
        yield Note(key="unused", values={"count": len(unused)})


def _padded(values: NDArray[np.float64], num_rows: int, start: int) -> NDArray[np.float64]:
    """Return values in their own rows, and 0 in those of the others."""
    whole = np.zeros((num_rows, 2))
    whole[start : start + len(values)] = values
    return whole


def _ratio(sums_N2: NDArray[np.float64]) -> Statistic:
    """Return Σ first / Σ second as a function of rows."""

    def ratio(rows: NDArray[np.int64]) -> float:
        """Divide; NaN where there is nothing to divide by."""
        total, count = sums_N2[rows].sum(0)
        return float(total / count) if count else np.nan

    return ratio


def _nlls(
    engine: Engine, speaker: Speaker, examples: Sequence[Example], progress: Progress | None
) -> Iterator[tuple[float, int]]:
    """Yield the negative log-likelihood of each answer, and its number of tokens."""
    reading = scoring(engine)
    with (progress or Silent()).task("read the answers", total=len(examples)) as advance:
        for example in examples:
            branch = speaker.branch(
                voice=speaker.role.name,
                instruction=own_instruction(speaker.role, example.language),
                sampling=Sampling(),
                capture=Capture(routing=False, logprobs=0),
            )
            with _trunk(engine, example.messages[:-1]) as trunk:
                (result,) = reading.score(trunk, [branch], [example.messages[-1].content])
            yield _nll(result)
            advance(1)


def _nll(result: BranchResult) -> tuple[float, int]:
    assert result.logprobs is not None  # noqa: S101 - asked for
    return -float(result.logprobs.chosen.sum(dtype=np.float64)), len(result.logprobs.chosen)


def _answers_right(
    engine: Engine,
    speaker: Speaker,
    examples: Sequence[Example],
    max_tokens: int,
    progress: Progress | None,
) -> Iterator[bool]:
    """Yield whether the role's own answer to each question is right."""
    with (progress or Silent()).task("answer the questions", total=len(examples)) as advance:
        for example in examples:
            branch = speaker.branch(
                voice=speaker.role.name,
                instruction=own_instruction(speaker.role, example.language),
                sampling=Sampling(max_new_tokens=max_tokens),
                capture=Capture(routing=False),
            )
            asked = example.messages[:-1] if example.is_answered else example.messages
            with _trunk(engine, asked) as trunk:
                (result,) = engine.decode(trunk, [branch])
            yield is_right(str(example.final_answer), result.text)
            advance(1)


@contextmanager
def _trunk(engine: Engine, dialogue: Sequence[Message]) -> Iterator[Trunk]:
    """Open a dialogue whose last turn is the user's."""
    system, turns = system_and_turns(dialogue)
    asked, *more = turns or (UNASKED,)
    if more or asked.role != "user":
        raise InputError(
            f"a dialogue of {len(dialogue)} turns stands before the answer; a voice is measured on "
            "one question",
            hint="give examples of a question and its answer",
        )
    trunk = engine.open_trunk(system=system, user=asked.content)
    try:
        yield trunk
    finally:
        engine.close_trunk(trunk)
