"""Make problems with labels that hold by construction."""

import hashlib
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Literal

from veche.core.errors import InputError
from veche.core.language import Language
from veche.roles.data.dialogue import normal_text
from veche.roles.data.example import Example, Message
from veche.roles.data.problems.arithmetic import arithmetic
from veche.roles.data.problems.dates import dates
from veche.roles.data.problems.lists import lists
from veche.roles.data.problems.puzzle import (
    LEVELS,
    Kind,
    Puzzle,
    Solution,
    slipped,
    solved,
)
from veche.roles.data.problems.syllogisms import syllogisms
from veche.roles.data.problems.units import units

Answers = Literal["none", "right", "both"]
"""What follows a question: nothing, a right solution, or a right one and a wrong one."""

_MAKERS: dict[Kind, Callable[[Random, int, Language], Puzzle[Any]]] = {
    "arithmetic": arithmetic,
    "dates": dates,
    "units": units,
    "lists": lists,
    "syllogisms": syllogisms,
}
_TRIES = 50
"""Puzzles that are drawn, one after the other, before one is given up as not to be found."""


def generate(
    kind: Kind,
    *,
    language: Language,
    difficulty: int,
    count: int,
    seed: int,
    answers: Answers = "both",
) -> list[Example]:
    """Return examples of `count` different problems; the same arguments give the same ones.

    A problem is a group. Its solutions are its steps, of which the last is the answer; a wrong one
    has one wrong step, at `first_bad_step`, from which all later ones follow.

    Args:
        kind: of problem, and the examples' task.
        language: of question and solutions.
        difficulty: in LEVELS.
        count: how many problems.
        seed: of every random choice.
        answers: what follows the question.

    Raises:
        InputError: there are fewer different problems of this difficulty.
    """
    if difficulty not in LEVELS:
        raise InputError(
            f"there is no difficulty {difficulty}",
            hint=f"it is from {LEVELS[0]} to {LEVELS[-1]}",
        )
    # Enough for data of any kind that has to be the same wherever it is made.
    rng = Random(f"{seed}:{kind}:{language}:{difficulty}")  # noqa: S311
    seen: set[str] = set()
    examples: list[Example] = []
    while len(seen) < count:
        puzzle, wrong = _new(kind, rng, difficulty, language, seen)
        examples += _examples(puzzle, wrong, answers)
    return examples


def _new(
    kind: Kind, rng: Random, difficulty: int, language: Language, seen: set[str]
) -> tuple[Puzzle[Any], Solution]:
    for _ in range(_TRIES):
        puzzle = _MAKERS[kind](rng, difficulty, language)
        wrong = slipped(puzzle, rng)
        known = {_group(puzzle), normal_text(puzzle.question)}
        if wrong is not None and not known & seen:
            seen.add(_group(puzzle))
            return puzzle, wrong
    raise InputError(
        f"there are hardly more than {len(seen)} different problems of {kind} at difficulty "
        f"{difficulty}",
        hint="ask for fewer, or for harder ones",
    )


def _examples(puzzle: Puzzle[Any], wrong: Solution, answers: Answers) -> Iterator[Example]:
    question = Message(role="user", content=puzzle.question)
    right = solved(puzzle)
    told: tuple[Solution | None, ...] = {
        "none": (None,),
        "right": (right,),
        "both": (right, wrong),
    }[answers]
    for solution in told:
        steps = () if solution is None else solution.steps
        said = (Message(role="assistant", content="\n".join(steps)),) if steps else ()
        yield Example(
            messages=(question, *said),
            group=_group(puzzle),
            task=puzzle.kind,
            language=puzzle.language,
            steps=steps,
            is_right=None if solution is None else solution.first_bad_step is None,
            first_bad_step=None if solution is None else solution.first_bad_step,
            intent=puzzle.intent,
            final_answer=right.answer,
        )


def _group(puzzle: Puzzle[Any]) -> str:
    """Name a problem by its facts, so that its wordings and translations are one problem."""
    digest = hashlib.sha256(json.dumps(puzzle.facts).encode()).hexdigest()[:16]
    return f"{puzzle.kind}-{digest}"
