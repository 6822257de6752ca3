"""The system's own answers: voices answer questions that can be checked, and are marked."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from veche.core.errors import InputError
from veche.core.language import Language
from veche.core.progress import Progress, Silent
from veche.engines.protocol import BranchResult, Capability, Capture, Engine
from veche.roles.data.asking import Asked, Asking
from veche.roles.data.dialogue import problem_of
from veche.roles.data.example import Example, Message
from veche.roles.data.problems.check import answer_in, is_checkable, is_right, same_answer
from veche.roles.evaluation.wilson import wilson_interval

MEAN_LOGPROB, DISAGREEMENT, MEAN_ENTROPY = "mean_logprob", "disagreement", "mean_entropy"
NUM_TOKENS, IS_CUT, HAS_ANSWER = "num_tokens", "is_cut", "has_answer"
"""Names of an own answer's signals."""
Keep = Callable[[Sequence[Example]], None]
"""Told of all answers to one question, once they are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, and how its answers are checked."""

    example: Example
    final_answer: str


def questions_of(examples: Sequence[Example]) -> list[Question]:
    """Return the question of each group once, whatever answers stand behind it.

    Raises:
        InputError: there is none, or its answer cannot be checked.
    """
    found: dict[str, Question] = {}
    for number, example in enumerate(examples, start=1):
        if example.group in found:
            continue
        final = example.final_answer
        if final is None or not is_checkable(final):
            raise InputError(
                f"example {number}, of {example.group!r}, has no final_answer that can be checked: "
                f"{final!r}",
                hint="a number, a date as 2024-03-05, a day of the week, a list as [3, 1], yes or "
                "no; veche role data generate makes such questions",
            )
        found[example.group] = Question(example=example, final_answer=final)
    if not found:
        raise InputError("there is no question to ask", hint="veche role data generate makes some")
    return list(found.values())


def collect(
    engine: Engine,
    questions: Sequence[Question],
    voices: Sequence[Asked],
    asking: Asking,
    *,
    keep: Keep,
    progress: Progress | None = None,
) -> int:
    """Let voices answer each question as one batch over one trunk; return how many answered.

    An answer's example has the question's group, task, intent and language, the voice as its
    author, and signals: "mean_logprob" and "mean_entropy" of its tokens, in nats; "disagreement",
    the share of the other voices that came to another answer (one that gives none disagrees with
    everybody); "num_tokens"; "is_cut", 1 where it ran out of tokens; "has_answer", 0 where no
    answer was found in it, which counts as wrong. Voices that say nothing are left out.

    Args:
        engine: one without LOGPROBS or ENTROPY leaves those signals out.
        questions: asked in order.
        voices: who answers.
        asking: the words around a question.
        keep: told of each question's answers.
        progress: told of each question.
    """
    total = 0
    with (progress or Silent()).task("ask the voices", total=len(questions)) as advance:
        for question in questions:
            answers = list(_answers(engine, question, voices, asking))
            keep(answers)
            total += len(answers)
            advance(1)
    return total


def _answers(
    engine: Engine, question: Question, voices: Sequence[Asked], asking: Asking
) -> Iterator[Example]:
    problem = asking.problem(problem_of(question.example.messages))
    can_tell = Capability.LOGPROBS in engine.capabilities
    capture = Capture(routing=False, logprobs=0 if can_tell else None)
    trunk = engine.open_trunk(system=asking.system, user=asking.opening + problem)
    try:
        results = engine.decode(trunk, [asking.branch(voice, capture=capture) for voice in voices])
    finally:
        engine.close_trunk(trunk)
    came_to = [answer_in(question.final_answer, result.text) for result in results]
    for index, result in enumerate(results):
        others = [answer for at, answer in enumerate(came_to) if at != index]
        if result.text.strip():
            yield _marked(question, result, came_to[index], others)


def _marked(
    question: Question, result: BranchResult, answer: object | None, others: Sequence[object | None]
) -> Example:
    example, text = question.example, result.text.strip()
    asked = example.messages[:-1] if example.is_answered else example.messages
    return Example(
        messages=(*asked, Message(role="assistant", content=text)),
        group=example.group,
        task=example.task,
        language=example.language,
        is_right=is_right(question.final_answer, text),
        intent=example.intent,
        final_answer=question.final_answer,
        author=result.voice,
        signals=_signals(result, answer, others),
    )


def _signals(
    result: BranchResult, answer: object | None, others: Sequence[object | None]
) -> dict[str, float]:
    signals = {
        NUM_TOKENS: float(len(result.token_ids)),
        IS_CUT: float(result.finish_reason == "length"),
        HAS_ANSWER: float(answer is not None),
    }
    if result.logprobs is not None and len(result.logprobs.chosen):
        signals[MEAN_LOGPROB] = float(result.logprobs.chosen.mean())
    if result.entropies:
        signals[MEAN_ENTROPY] = sum(result.entropies) / len(result.entropies)
    if others:
        differing = sum(not same_answer(answer, other) for other in others)
        signals[DISAGREEMENT] = differing / len(others)
    return {name: value for name, value in signals.items() if math.isfinite(value)}


def plan_questions(
    examples: Sequence[Example], *, shots: int | None, limit: int | None
) -> list[tuple[Asking, list[Question]]]:
    """Return what is asked, kind by kind, each with the solved problems that are shown first.

    Args:
        examples: questions, with solutions or without.
        shots: problems of each task and language that are shown with their solution, and not asked;
            None is 3 where there are so many solutions, else none.
        limit: questions that are asked in all, spread evenly over the kinds; None is all.

    Raises:
        InputError: a kind has too few solutions, or nothing is left to ask.
    """
    kinds: dict[tuple[str, Language], list[Example]] = {}
    for example in examples:
        kinds.setdefault((example.task, example.language or "en"), []).append(example)
    planned = []
    for (task, language), found in kinds.items():
        solved = {e.group: e for e in found if e.is_right and e.is_answered}
        wanted = _DEFAULT_SHOTS if shots is None else shots
        if len(solved) <= wanted:
            if shots:
                raise InputError(
                    f"{task} has {len(solved)} solved problems, and {shots} are to be shown",
                    hint="--shots 0, or veche role data generate --answers right",
                )
            wanted = 0
        worked = tuple(solved.values())[:wanted]
        shown = {example.group for example in worked}
        rest = questions_of([example for example in found if example.group not in shown])
        planned.append((Asking(language=language, worked=worked), rest))
    if not planned:
        raise InputError("there is no question to ask", hint="veche role data generate makes some")
    shares = _shares([len(rest) for _, rest in planned], limit)
    return [(asking, rest[:share]) for (asking, rest), share in zip(planned, shares, strict=True)]


def _shares(counts: Sequence[int], limit: int | None) -> list[int]:
    """Return how many are taken of each kind: `limit` in all, as evenly as the counts allow."""
    if limit is None:
        return list(counts)
    rounds = [(number, kind) for kind, count in enumerate(counts) for number in range(count)]
    taken = Counter(kind for _, kind in sorted(rounds)[:limit])
    return [taken[kind] for kind in range(len(counts))]


_DEFAULT_SHOTS = 3


def summary_of(answers: Sequence[Example]) -> dict[str, Any]:
    """Return how many answers there are, and how often each voice was right, as JSON values."""
    voices: dict[str, list[Example]] = {}
    for answer in answers:
        voices.setdefault(answer.author or "?", []).append(answer)
    num_right = sum(bool(answer.is_right) for answer in answers)
    return {
        "questions": len({answer.group for answer in answers}),
        "answers": len(answers),
        "right": num_right,
        "share": num_right / len(answers) if answers else None,
        "voices": {voice: _row(found) for voice, found in voices.items()},
    }


def _row(answers: Sequence[Example]) -> dict[str, Any]:
    share = wilson_interval(sum(bool(a.is_right) for a in answers), len(answers))
    return {"answers": len(answers), "share": share.mean, "interval": share.as_list()}
